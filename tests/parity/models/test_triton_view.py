"""Tests every packed family with Triton's kernels against float64, on a GPU or else with Triton's interpreter."""

import copy
import os

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

pytest.importorskip("triton", reason="Triton is not installed (make test runs this file with it)")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET")):
    pytest.skip("no GPU: make test runs this file in Triton's interpreter", allow_module_level=True)

from ftsys.kernels.dropout import token_keys
from ftsys.kernels.triton_layers import choice
from ftsys.models.packed import PackedView
from tests.parity.models.tiny_models import all_in_float64, packed_inputs, sequences, small_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = [1, 7]
FAMILIES = [
    *("bert", "albert", "distilbert", "roberta-prelayernorm", "mpnet", "deberta-v3", "modernbert-cls", "eurobert-mean"),
    *("llama", "gemma", "qwen3", "olmo2", "phi3"),
]
"""One of each kind of layer: the interpreter takes seconds a model."""


@pytest.fixture(autouse=True)
def _triton_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "why_not_triton", lambda device: None)


def results(model: PreTrainedModel, kernel: str) -> dict[str, Tensor]:
    """Return the logits of one batch, with dropout, and the gradient of each parameter."""
    inputs = packed_inputs(PackedView(model.train(), kernel), sequences(LENGTHS))
    layout = inputs["packed"]
    ids = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    object.__setattr__(layout, "dropout_keys_T", token_keys(1, 2, ids, torch.arange(len(ids))).to(DEVICE))
    logits = model(**inputs).logits
    logits.double().square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **gradients}


@pytest.mark.parametrize("variant", FAMILIES)
def test_a_family_computes_as_in_float64(variant: str) -> None:
    exact = small_model(variant, labels=3)
    for module in exact.modules():
        if hasattr(module, "pos_dropout"):
            module.pos_dropout.p = 0.0  # of rows without a token, so its masks come from torch's generator
    fast = copy.deepcopy(exact).float()
    with all_in_float64():
        wanted = results(exact, "padded")
    found = results(fast, "triton")
    assert found.keys() == wanted.keys()
    largest = max(expected.norm() for expected in wanted.values())
    for name, expected in wanted.items():
        # Some gradients are zero but for rounding, such as those of the keys' biases.
        assert (found[name].double() - expected).norm() < 1e-5 * expected.norm() + 1e-7 * largest, name


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_layers_have_the_same_gradients(reentrant: bool) -> None:
    plain = small_model("bert", labels=3).float()
    again = copy.deepcopy(plain)
    enable = getattr(again, "activation_checkpointing_enable", None) or again.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    found, wanted = results(again, "triton"), results(plain, "triton")
    assert found.keys() == wanted.keys()
    for name, expected in wanted.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)
