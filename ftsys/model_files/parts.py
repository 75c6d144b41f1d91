"""Tells the part of a model that a weight belongs to, by its name: embeddings, a layer, the rest of the encoder, head.

The names are transformers' own, so one rule serves all families, with torch and without.
"""

import re
from collections.abc import Iterable

PARTS = ("embeddings", "encoder", "head", "layers.0", "layers.0-3")
"""Names that train.freeze takes; the last two stand for any numbers."""

_LAYERS = re.compile(r"layers\.(\d{1,6})(?:-(\d{1,6}))?")
_LAYER = re.compile(r"\.(?:layer|layers|albert_layer_groups)\.(\d+)\.")
_EMBEDDINGS = frozenset(
    "embeddings embeddings_project embed_tokens embedding_hidden_mapping_in rel_embeddings relative_attention_bias"
    " word_embedding".split()
)
"""Modules that all layers read: tables of tokens and positions, and what brings them to the width of the layers."""
_ATTENTIONS = frozenset({"attention", "attn", "self_attn"})


def layers_named(part: str) -> range | None:
    """Return the layers that "layers.N" or "layers.N-M" names, from 0; None for any other text."""
    found = _LAYERS.fullmatch(part)
    if found is None:
        return None
    first = int(found[1])
    return range(first, int(found[2] or first) + 1)


def part_of(name: str, base: str) -> str:
    """Return the part of the weight or module `name`: "embeddings", "layers.N", "encoder" (its rest) or "head".

    `base` is the name of the encoder within the model (`base_model_prefix`).
    """
    if not name.startswith(f"{base}."):
        return "head"
    layer = _LAYER.search(f"{name}.")
    if layer is not None:
        return f"layers.{layer[1]}"
    return "embeddings" if _EMBEDDINGS.intersection(name.split(".")) else "encoder"


def depth_of(part: str, layers: int) -> int:
    """Return 0 for the embeddings, N + 1 for layer N, and `layers` + 1 for what comes after all layers."""
    if part == "embeddings":
        return 0
    named = layers_named(part)
    return layers + 1 if named is None else named[0] + 1


def count_layers(names: Iterable[str], base: str) -> int:
    """Return the number of layers that weights with these names make up. ALBERT's layers share one set of weights."""
    found = {part for name in names if (part := part_of(name, base)).startswith("layers.")}
    return len(found)


def in_attention(name: str) -> bool:
    """Return True for a weight or module within the attention of a layer."""
    return bool(_ATTENTIONS.intersection(name.split("."))) and _LAYER.search(name) is not None


def within_layer(name: str) -> str:
    """Return the part of a module's name behind its layer's number, such as "attention.self.query"."""
    found = _LAYER.search(name)
    return name if found is None else name[found.end() :]
