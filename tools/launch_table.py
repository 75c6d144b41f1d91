"""Counts the launches of each family's passes, and writes them into `launcher.planner.cost.launches`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODULE = Path(__file__).parents[1] / "launcher/planner/cost/launches.py"
LAYERS = 4
"""Layers of the model for which the table is exact."""

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
    """Return a row of the table: launches outside the layers and of each layer, forward and backward.

    The layers of ModernBERT are of three kinds in turn, so a layer is the mean of three.
    """
    few, more = counted(family, LAYERS), counted(family, LAYERS + 3)
    forward, backward = (round((many - some) / 3) for some, many in zip(few, more, strict=True))
    return few[0] - LAYERS * forward, forward, few[1] - LAYERS * backward, backward


def with_rows(text: str) -> str:
    """Return the text of the planner's module with a table counted anew."""
    head, _, rest = text.partition("_BY_FAMILY = {\n")
    rows = "".join(f'    "{family}": Launches{row(family)},\n' for family in FAMILIES)
    return f"{head}_BY_FAMILY = {{\n{rows}{rest[rest.index('}') :]}"


if __name__ == "__main__":
    MODULE.write_text(with_rows(MODULE.read_text(encoding="utf-8")), encoding="utf-8")
