"""Reads sizes from a config.json and names the parameters that several model families have in common."""

from collections.abc import Iterator, Mapping
from typing import Any

from ftsys.errors import ConfigError
from launcher.planner.model_shape.shape import Layer, ModelShape, Tensor

Config = Mapping[str, Any]
Tensors = Iterator[Tensor]


def size_of(config: Config, name: str, default: int | None) -> int:
    """Read a size from a config.json. Raises ConfigError where it is missing or not a whole number of 0 or more."""
    value = config.get(name)
    value = default if value is None else value
    if type(value) is not int or value < 0:
        raise ConfigError(f"config.json has {name}={value!r}, which is not a size")
    return value


def share_of(config: Config, name: str, default: float) -> float:
    """Read a probability from a config.json. Raises ConfigError for a value outside 0 to 1."""
    value = config.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError(f"config.json has {name}={value!r}, which is not a probability")
    return float(value)


def linear(name: str, into: int, out: int, bias: bool = True, uses: int = 1) -> Tensors:
    """Yield weight (out, into) and bias (out,) of an `nn.Linear`."""
    yield Tensor(f"{name}.weight", (out, into), uses=uses)
    if bias:
        yield Tensor(f"{name}.bias", (out,), uses=uses)


def norm(name: str, size: int, bias: bool = True, uses: int = 1) -> Tensors:
    """Yield weight and bias of a norm over `size` elements."""
    yield Tensor(f"{name}.weight", (size,), uses=uses)
    if bias:
        yield Tensor(f"{name}.bias", (size,), uses=uses)


def table(name: str, rows: int, width: int) -> Tensor:
    """Return the weight (rows, width) of an `nn.Embedding`."""
    return Tensor(f"{name}.weight", (rows, width), embedding=True)


def shape_of_layer(config: Config, **changes: Any) -> Layer:
    """Read a layer by the names that most families use for its sizes; `changes` replace single fields."""
    hidden = size_of(config, "hidden_size", 768)
    heads = size_of(config, "num_attention_heads", 12)
    sizes: dict[str, Any] = {
        "hidden": hidden,
        "inner": size_of(config, "intermediate_size", 3072),
        "heads": heads,
        "head_size": hidden // max(heads, 1),
        "key_heads": heads,
        "activation": str(config.get("hidden_act", "gelu")),
        "attention_dropout": share_of(config, "attention_probs_dropout_prob", 0.1),
        "hidden_dropout": share_of(config, "hidden_dropout_prob", 0.1),
    }
    return Layer(**(sizes | changes))


def bert_layer(prefix: str, layer: Layer, attention: tuple[str, ...] = ("query", "key", "value")) -> Tensors:
    """Yield the parameters of a BERT layer; `attention` names its three projections."""
    size = layer.hidden
    for name in attention:
        yield from linear(f"{prefix}.attention.self.{name}", size, size)
    yield from linear(f"{prefix}.attention.output.dense", size, size)
    yield from norm(f"{prefix}.attention.output.LayerNorm", size)
    yield from linear(f"{prefix}.intermediate.dense", size, layer.inner)
    yield from linear(f"{prefix}.output.dense", layer.inner, size)
    yield from norm(f"{prefix}.output.LayerNorm", size)


def two_layer_head(size: int, outputs: int) -> Tensors:
    """Yield the parameters of RoBERTa's classification head."""
    yield from linear("classifier.dense", size, size)
    yield from linear("classifier.out_proj", size, outputs)


def encoder(family: str, config: Config, layer: Layer, tensors: Tensors, outputs: int, **more: Any) -> ModelShape:
    """Return a ModelShape; `more` are the fields that differ from what BERT's config.json says."""
    common: dict[str, Any] = {
        "layers": size_of(config, "num_hidden_layers", 12),
        "embedding_size": layer.hidden,
        "longest": size_of(config, "max_position_embeddings", 512),
    }
    return ModelShape(family=family, tensors=tuple(tensors), layer=layer, outputs=outputs, **(common | more))
