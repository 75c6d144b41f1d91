"""Decides by names alone which weights `train.freeze` and `[lora]` leave out of the training; without torch."""

from collections.abc import Iterable, Sequence

from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.model_files.parts import count_layers, in_attention, layers_named, part_of, within_layer

AUTO, ALL = ("auto",), ("all",)
"""Values of `lora.target_modules` that name no layer: those of each attention, and all of each layer."""


def frozen_names(names: Iterable[str], base: str, parts: Sequence[str]) -> set[str]:
    """Return the weights that `parts`, the names of `train.freeze`, take out of the training.

    `names` are those of all weights, `base` is the encoder's within the model. Raises ConfigError for a layer that the
    model does not have, and where no weight is left to train.
    """
    names = list(names)
    chosen = _expanded(parts, count_layers(names, base))
    by_name = {name: part_of(name, base) for name in names}
    found = {name for name, part in by_name.items() if part in chosen or ("encoder" in chosen and part != "head")}
    if names and len(found) == len(names):
        raise ConfigError(f"train.freeze={list(parts)!r} leaves no weight of this model to train: leave a part out.")
    return found


def _expanded(parts: Sequence[str], layers: int) -> set[str]:
    """Return `parts` with each layer by itself."""
    found: set[str] = set()
    for part in parts:
        named = layers_named(part)
        if named is not None and named[-1] >= layers:
            raise ConfigError(
                f"train.freeze={list(parts)!r}: this model has no {part!r}. It has {layers} layer(s) with weights of "
                f"their own, the last one is 'layers.{layers - 1}'."
            )
        found |= {part} if named is None else {f"layers.{number}" for number in named}
    return found


def adapter_targets(linear: Iterable[str], base: str, asked: Sequence[str]) -> list[str]:
    """Return the names of the layers that get an adapter, out of the model's linear layers `linear`.

    `asked` is `lora.target_modules`. Head and embeddings get none. Raises ConfigError for a name without a layer.
    """
    inside = [name for name in linear if part_of(name, base) not in ("head", "embeddings")]
    if tuple(asked) in (AUTO, ALL):
        wanted = [name for name in inside if part_of(name, base) != "encoder"]
        return [name for name in wanted if tuple(asked) == ALL or in_attention(name)]
    for target in asked:
        if not any(_ends(name, target) for name in inside):
            known = dict.fromkeys(within_layer(name).rpartition(".")[2] for name in inside)
            raise ConfigError(
                f"lora.target_modules={list(asked)!r}: no linear layer of this model's encoder has a name that ends "
                f"in {target!r}: {did_you_mean(target, known)}."
            )
    return [name for name in inside if any(_ends(name, target) for target in asked)]


def _ends(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")
