"""Counts the kernel launches of each family's passes, for `launcher.planner.cost.launches`: python -m tools.launch_table."""

from collections.abc import Iterator, Mapping
from typing import Any

_FEW_KEY_HEADS = {"hidden_size": 96, "intermediate_size": 192, "num_key_value_heads": 4}
_RELATIVE = {"relative_attention": True, "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 256}

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "electra": {"embedding_size": 128},
    "albert": {"embedding_size": 128},
    "distilbert": {},
    "mpnet": {},
    "deberta-v2": {**_RELATIVE, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0, "position_biased_input": False},
    "modernbert": {},
    "llama": _FEW_KEY_HEADS,
    "mistral": _FEW_KEY_HEADS,
    "qwen2": _FEW_KEY_HEADS,
    "qwen3": _FEW_KEY_HEADS,
}
"""Family -> what its configuration has besides sizes."""


def counted(family: str, layers: int) -> tuple[int, int]:
    """Return the launches of the forward and the backward pass of a model of `layers` layers, in bf16."""
    from ftsys.bench.launch_parts.steps import our_step

    sizes = {"num_attention_heads": 12, "num_hidden_layers": layers}
    if family == "distilbert":
        sizes = {"n_heads": 12, "n_layers": layers}
    step = our_step({"model_type": family, **sizes, **FAMILIES[family]})
    return step["forward"].launches, step["backward"].launches


def row(family: str) -> tuple[int, int, int, int]:
    """Return a row of the table: launches outside the layers and of each layer, forward and backward."""
    one, two = counted(family, 1), counted(family, 2)
    forward, backward = two[0] - one[0], two[1] - one[1]
    return one[0] - forward, forward, one[1] - backward, backward


def lines() -> Iterator[str]:
    """Yield the table as lines of Python."""
    for family in FAMILIES:
        yield f'    "{family}": Launches{row(family)},'


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
