"""Tests dropout in whole models: an example has the same masks in every pack and with every kernel."""

import itertools

import pytest
import torch
from transformers import PreTrainedModel

from ftsys.bench.memory_parts.fake_step import recompute_layers
from ftsys.kernels.dropout import token_keys
from ftsys.kernels.select import KERNELS
from ftsys.models.packed import PackedView
from tests.parity.models.tiny_models import small_model

LENGTHS = [9, 1, 30, 14, 14, 3]
KEYED = ["bert", "distilbert", "roberta", "electra", "albert", "mpnet", "modernbert-cls", "modernbert-mean"]


def _model(variant: str, kernel: str = "grouped") -> tuple[PreTrainedModel, PackedView]:
    model = small_model(variant, labels=3)
    for name in ("hidden", "attention", "embedding", "mlp", "classifier"):
        for key in (f"{name}_dropout", f"{name}_dropout_prob", f"{name}_probs_dropout_prob"):
            if hasattr(model.config, key):
                setattr(model.config, key, 0.3)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.3
    return model.train(), PackedView(model, kernel)


def _logits(model: PreTrainedModel, view: PackedView, examples: list[int], step: int = 5) -> torch.Tensor:
    """Return the logits (S, C) of the examples, packed in this order."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(2, 60, (length,), generator=generator) for length in LENGTHS]
    ids, lengths = torch.cat([rows[e] for e in examples]), torch.tensor([LENGTHS[e] for e in examples])
    positions = torch.cat([torch.arange(LENGTHS[e]) for e in examples])
    bounds = torch.tensor(list(itertools.accumulate(lengths.tolist(), initial=0)), dtype=torch.int32)
    keys = token_keys(11, step, torch.tensor(examples).repeat_interleave(lengths), positions)
    inputs = view.inputs(ids, positions, torch.zeros_like(ids), bounds, int(lengths.max()), keys)
    logits: torch.Tensor = model(**inputs).logits
    return logits


@pytest.mark.parametrize("variant", KEYED)
def test_an_example_is_dropped_alike_in_every_pack(variant: str) -> None:
    model, view = _model(variant)
    whole = _logits(model, view, [0, 1, 2, 3, 4, 5])
    assert not torch.allclose(whole, _logits(model, view, [0, 1, 2, 3, 4, 5], step=6))
    for pack in ([5, 2], [0, 4, 3], [1]):
        torch.testing.assert_close(_logits(model, view, pack), whole[pack], rtol=1e-9, atol=1e-9)
    model.eval()
    assert not torch.allclose(whole, _logits(model, view, [0, 1, 2, 3, 4, 5]))


@pytest.mark.parametrize("kernel", sorted(set(KERNELS) - {"reference"}))
def test_every_kernel_drops_the_same_probabilities(kernel: str) -> None:
    examples = list(range(len(LENGTHS)))
    results = []
    for name in ("reference", kernel):
        model, view = _model("bert", name)
        logits = _logits(model, view, examples)
        gradients = torch.autograd.grad((logits**2).sum(), list(model.parameters()))
        results.append([logits, *gradients])
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", ["bert", "roberta", "modernbert-cls"])
def test_recomputed_layers_drop_what_they_dropped(variant: str) -> None:
    model, view = _model(variant)
    examples = list(range(len(LENGTHS)))
    plain = torch.autograd.grad((_logits(model, view, examples) ** 2).sum(), list(model.parameters()))
    recompute_layers(model)
    model.zero_grad()
    (_logits(model, view, examples) ** 2).sum().backward()
    for (name, parameter), expected in zip(model.named_parameters(), plain, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-9, msg=name)


def test_shared_layers_have_masks_of_their_own_for_each_call() -> None:
    model, view = _model("albert")
    seen: list[int] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(
                lambda module, args, output: seen.append(module.layout_slot.recent_layout.calls.total())
            )
    _logits(model, view, [0, 1])
    assert len(seen) > len(set(map(id, model.modules()))) // 8
    assert seen == sorted(set(seen))


def test_without_keys_and_for_padded_batches_it_is_torchs_dropout() -> None:
    model, view = _model("bert")
    _logits(model, view, [0, 1])
    ids = torch.randint(2, 60, (2, 9))
    first, second = (model(input_ids=ids).logits for _ in range(2))
    assert not torch.equal(first, second)
