"""Checks the values of a model's config.json that decide its sizes, before anything is allocated.

Names of all families are checked by one table: a name means the same in each of them. Other keys are left to
transformers, but for those that lead it to other files, or to code of the Hub.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

LARGEST_SIZE = 2**26
"""Far above the largest vocabulary and the longest text: a model makes tables of so many numbers when it is loaded."""
MOST_LAYERS = 10_000
"""Far above the deepest model; a damaged number is larger."""
MOST_LABELS = 1_000_000
"""A model makes a name for each label."""

_LAYERS = frozenset("num_hidden_layers n_layers n_layer num_layers encoder_layers decoder_layers".split())
_GROUPS = ("num_hidden_groups", "inner_group_num")
"""ALBERT's groups of layers, and the layers of a group."""
_COUNTS = re.compile(r"(num|n)_(\w+_)?(layers|networks|experts|blocks|groups)")
"""Further keys for which a model makes so many parts."""
_SIZES = frozenset(
    "hidden_size dim d_model n_embd embedding_size vocab_size num_attention_heads n_heads n_head num_heads "
    "num_key_value_heads head_dim intermediate_size hidden_dim d_inner d_ff ffn_dim max_position_embeddings "
    "n_positions n_ctx".split()
)
_NEEDED = frozenset("hidden_size num_hidden_layers num_attention_heads vocab_size".split())
_SHARES = frozenset(
    "hidden_dropout_prob attention_probs_dropout_prob classifier_dropout dropout attention_dropout embedding_dropout "
    "mlp_dropout classifier_dropout_prob seq_classif_dropout pooler_dropout resid_pdrop embd_pdrop attn_pdrop "
    "dropout_rate".split()
)


_SWITCHES = frozenset({"return_dict", "output_attentions", "output_hidden_states"})
_TOKEN_TYPES_NEEDED = frozenset(
    "albert bert big_bird camembert canine convbert data2vec-text electra ernie fnet ibert jina_embeddings_v3 layoutlm "
    "layoutlmv2 layoutlmv3 lilt longformer luke markuplm megatron-bert mobilebert mra nomic_bert nystromformer rembert "
    "roberta roberta-prelayernorm roc_bert roformer squeezebert xlm-roberta xlm-roberta-xl xmod yoso".split()
)
"""Types of models that look up a token's type however few there are. Others, such as DeBERTa, have no types at 0."""
_NAMES_OF_LABELS = ("id2label", "label2id")
_NAMES_OF_CODE = ("attn_implementation", "experts_implementation")
"""Ends of keys with which transformers chooses code, as for one of a model's parts in `_attn_implementation`."""


def wrong_values(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each value of a config.json that no model can have, also in the settings of its parts."""
    for level in _levels(config):
        if level is config:
            yield from _wrong_here(level)
        else:  # keys of a part may have other types in some family, but no other numbers
            yield from _wrong_here({name: value for name, value in level.items() if _is_number(value)})


def led_elsewhere(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each key with which transformers would read other files than ftsys checks, or run code."""
    if "configuration_files" in config:
        yield "configuration_files names other files in the place of this one"
    for level in _levels(config):
        for name, value in level.items():
            if name.endswith(_NAMES_OF_CODE) and "/" in repr(value):
                yield f"{name}={_short(value)} names code of the Hub"


def _levels(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a configuration and all objects within it, except those whose keys are names of labels."""
    left: list[Any] = [config]
    while left:
        item = left.pop()
        if isinstance(item, Mapping):
            yield item
            left += [value for name, value in item.items() if name not in _NAMES_OF_LABELS]
        elif isinstance(item, list):
            left += item


def _wrong_here(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in config.items():
        if value is None and name not in _NEEDED:
            continue
        wanted = _wanted(name, value)
        if wanted is not None:
            yield f"{name}={_short(value)} is not {wanted}"
    if config.get("type_vocab_size") == 0 and config.get("model_type") in _TOKEN_TYPES_NEEDED:
        yield f"type_vocab_size=0 is not 1 or more, which a model of type {config['model_type']!r} needs"
    groups, each = (value if type(value := config.get(name)) is int else 1 for name in _GROUPS)
    if max(groups, each) <= MOST_LAYERS < groups * each:
        yield f"{_GROUPS[0]}={groups} of {_GROUPS[1]}={each} are more than {MOST_LAYERS} layers"


def dropouts(config: Mapping[str, Any], dropout: float) -> dict[str, float]:
    """Return `dropout` for each kind of dropout in a configuration; None in it means that of another kind."""
    named = {name: value for name, value in config.items() if "dropout" in name or name.endswith("_pdrop")}
    return {name: dropout for name, value in named.items() if _is_number(value)}


def _wanted(name: str, value: Any) -> str | None:
    """Return the description of the values that a key may have, or None if `value` is one of them."""
    right, wanted = True, ""
    if name in _LAYERS or name in _GROUPS:
        right, wanted = _is_whole(value, 1, MOST_LAYERS), f"a whole number from 1 to {MOST_LAYERS}"
    elif _COUNTS.fullmatch(name):
        right, wanted = not _is_number(value) or value <= MOST_LAYERS, f"a number up to {MOST_LAYERS}"
    elif name in _SIZES:
        right, wanted = _is_whole(value, 1, LARGEST_SIZE), f"a whole number from 1 to {LARGEST_SIZE}"
    elif name == "num_labels":
        right, wanted = _is_whole(value, 0, MOST_LABELS), f"a whole number from 0 to {MOST_LABELS}"
    elif name == "type_vocab_size":
        right, wanted = _is_whole(value, 0, LARGEST_SIZE), f"a whole number from 0 to {LARGEST_SIZE}"
    elif name in _SHARES:
        right, wanted = _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"
    elif name == "pad_token_id":
        right, wanted = _is_whole(value, -1, LARGEST_SIZE), "the id of a token"
    elif name == "model_type":
        right, wanted = isinstance(value, str), "text"
    elif name in _SWITCHES:
        right, wanted = isinstance(value, bool), "true or false"
    elif name in _NAMES_OF_LABELS:
        right, wanted = isinstance(value, dict), "an object"
    return None if right else wanted


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
