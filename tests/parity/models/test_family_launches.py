"""Tests that a layer of each packed family keeps its budget of kernel launches, with dropout, by count."""

from typing import Any

import pytest

from ftsys.bench.launch_parts import steps
from ftsys.bench.launch_parts.steps import our_passes
from ftsys.models.families import FAMILIES

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4}
OWN: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True},
    "modernbert": {"global_attn_every_n_layers": 1},
    "eurobert": {"classifier_pooling": "mean"},
    "gemma": {"head_dim": 8},
    "qwen3": {"head_dim": 8},
}
"""Settings that differ from the class's own: heads of 8 elements, and every layer of one kind."""
BUDGETS = {
    **dict.fromkeys(("bert", "electra", "roberta", "xlm-roberta", "camembert", "ernie", "data2vec-text"), (9, 17)),
    "albert": (17, 45),  # autograd adds the gradients of a weight that all layers share
    "distilbert": (12, 20),
    "roberta-prelayernorm": (13, 21),
    "xlm-roberta-xl": (12, 20),
    # The attention of these two has relative terms, which the kernel in Triton does not compute.
    "mpnet": (39, 40),
    "deberta-v2": (48, 61),
    "modernbert": (28, 39),
    **dict.fromkeys(("eurobert", "llama", "mistral", "gemma", "smollm3"), (24, 37)),
    "qwen2": (24, 38),
    "qwen3": (30, 41),
    "olmo2": (32, 47),
    "phi3": (28, 45),
}
"""The most launches of a layer, forward and backward."""


@pytest.fixture(autouse=True)
def _few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LENGTHS", (5, 3, 4))


def test_every_family_has_a_budget() -> None:
    assert BUDGETS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_a_layer_keeps_its_budget(model_type: str) -> None:
    """The third layer's launches: the first and the last one have others."""
    config = {"model_type": model_type, **HEADS, **OWN.get(model_type, {})}
    two, three = (our_passes({**config, "num_hidden_layers": layers}) for layers in (2, 3))
    forward, backward = (three[phase].launches - two[phase].launches for phase in ("forward", "backward"))
    most_forward, most_backward = BUDGETS[model_type]
    assert forward <= most_forward
    assert backward <= most_backward
