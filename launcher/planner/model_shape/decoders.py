"""Lists the parameters of decoders that classify by a sequence's last token, in the order of transformers 5."""

from collections.abc import Callable

from launcher.planner.model_shape.parts import Config, Tensors, encoder, linear, norm, share_of, size_of, table
from launcher.planner.model_shape.shape import Layer, ModelShape

_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
_MISTRAL = _LLAMA | {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072}
_QWEN = _LLAMA | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}


def _decoder(
    family: str, defaults: dict[str, int], biased: str = "", head_norms: bool = False
) -> Callable[[Config, int], ModelShape]:
    """Return a function from a config.json to the shape of a model built like Llama.

    `biased` has the first letters of the projections with a bias (Qwen2: "qkv").
    """

    def shape(config: Config, outputs: int) -> ModelShape:
        filled = defaults | {name: value for name, value in config.items() if value is not None}
        layer = _layer(filled, head_norms)
        tensors = _tensors(filled, layer, biased, outputs)
        return encoder(family, filled, layer, tensors, outputs)

    return shape


def _layer(config: Config, head_norms: bool) -> Layer:
    hidden, heads = size_of(config, "hidden_size", None), size_of(config, "num_attention_heads", None)
    return Layer(
        hidden=hidden,
        inner=size_of(config, "intermediate_size", None),
        heads=heads,
        head_size=size_of(config, "head_dim", hidden // max(heads, 1)),
        key_heads=size_of(config, "num_key_value_heads", heads),
        attention="rotary",
        head_norms=head_norms,
        pre_norm=True,
        rms_norm=True,
        gated=True,
        activation=str(config.get("hidden_act", "silu")),
        attention_dropout=share_of(config, "attention_dropout", 0.0),
    )


def _tensors(config: Config, layer: Layer, biased: str, outputs: int) -> Tensors:
    yield table("model.embed_tokens", size_of(config, "vocab_size", None), layer.hidden)
    for index in range(size_of(config, "num_hidden_layers", None)):
        yield from _attention(f"model.layers.{index}.self_attn", config, layer, biased)
        yield from _inner_block(f"model.layers.{index}.mlp", layer, config.get("mlp_bias") is True)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield from norm(f"model.layers.{index}.{name}", layer.hidden, bias=False)
    yield from norm("model.norm", layer.hidden, bias=False)
    yield from linear("score", layer.hidden, outputs, bias=False)


def _attention(prefix: str, config: Config, layer: Layer, biased: str) -> Tensors:
    bias_everywhere = config.get("attention_bias") is True
    for name, heads in (("q", layer.heads), ("k", layer.key_heads), ("v", layer.key_heads)):
        bias = bias_everywhere or name in biased
        yield from linear(f"{prefix}.{name}_proj", layer.hidden, heads * layer.head_size, bias)
    yield from linear(f"{prefix}.o_proj", layer.heads * layer.head_size, layer.hidden, bias_everywhere)
    for name in ("q_norm", "k_norm") if layer.head_norms else ():
        yield from norm(f"{prefix}.{name}", layer.head_size, bias=False)


def _inner_block(prefix: str, layer: Layer, bias: bool) -> Tensors:
    for name in ("gate_proj", "up_proj"):
        yield from linear(f"{prefix}.{name}", layer.hidden, layer.inner, bias)
    yield from linear(f"{prefix}.down_proj", layer.inner, layer.hidden, bias)


llama = _decoder("llama", _LLAMA)
mistral = _decoder("mistral", _MISTRAL)
qwen2 = _decoder("qwen2", _QWEN, biased="qkv")
qwen3 = _decoder("qwen3", _QWEN | {"head_dim": 128}, head_norms=True)
