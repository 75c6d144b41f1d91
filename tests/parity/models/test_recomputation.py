"""Tests that activation checkpointing gives the same gradients, with the same dropout masks."""

import itertools

import pytest
import torch
from transformers import PreTrainedModel

from ftsys.bench.memory_parts.fake_step import recompute_layers
from ftsys.kernels.dropout import token_keys
from ftsys.models.packed import PackedView
from tests.parity.models.tiny_models import sequences, small_model

# Of the packed families transformers recomputes all but ALBERT and MPNet.
VARIANTS = ["bert", "roberta", "electra", "distilbert", "deberta-v3", "modernbert-cls", "llama", "qwen3"]
LENGTHS = [9, 1, 24, 14, 3]


def gradients(model: PreTrainedModel, view: PackedView, step: int) -> dict[str, torch.Tensor]:
    """Return the gradients of one packed batch in training mode, with dropout keyed by the step."""
    rows, lengths = sequences(LENGTHS), torch.tensor(LENGTHS)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    bounds = torch.tensor(list(itertools.accumulate(LENGTHS, initial=0)), dtype=torch.int32)
    keys = token_keys(7, step, torch.arange(len(LENGTHS)).repeat_interleave(lengths), positions)
    inputs = view.inputs(torch.cat(rows), positions, torch.zeros_like(positions), bounds, max(LENGTHS), keys)
    model.zero_grad()
    torch.manual_seed(step)
    model(**inputs).logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def recomputing(model: PreTrainedModel) -> list[int]:
    """Switch activation checkpointing on; return a list that gets one element per computation of a layer."""
    calls: list[int] = []
    recompute_layers(model)
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing") and hasattr(module, "_gradient_checkpointing_func"):
            for child in module.children():
                child.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kernel", ["padded", "grouped"])
def test_gradients_do_not_depend_on_it(variant: str, kernel: str) -> None:
    model = small_model(variant, labels=3).train()
    view = PackedView(model, kernel)
    kept = gradients(model, view, step=3)
    assert any(
        not torch.equal(gradient, kept[name]) for name, gradient in gradients(model, view, step=4).items()
    ) or not any(module.p for module in model.modules() if isinstance(module, torch.nn.Dropout))
    calls = recomputing(model)
    again = gradients(model, view, step=3)
    assert calls
    assert set(again) == set(kept)
    for name, gradient in again.items():
        torch.testing.assert_close(gradient, kept[name], rtol=1e-12, atol=1e-12, msg=name)
