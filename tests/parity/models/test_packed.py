"""Tests packed batches against the padded reference in float64: loss and all gradients agree to 1e-9."""

import pytest
import torch
from transformers import PreTrainedModel

from ftsys.models.families import FAMILIES
from ftsys.models.packed import PackedView
from ftsys.train.trainer.loss import loss_per_example
from tests.parity.models.tiny_models import (
    VARIANTS,
    all_in_float64,
    longest_row,
    packed_inputs,
    packed_model,
    padded_inputs,
    sequences,
    stock_model,
)

LENGTHS = {"mixed": [5, 1, 24, 7, 7], "short": [8, 3], "equal": [6, 6, 6], "single": [24], "shortest": [1, 1]}
# Labels of the head and transformers' name for the problem.
PROBLEMS = {
    "regression": (1, "regression"),
    "two labels": (2, "single_label_classification"),
    "many labels": (7, "single_label_classification"),
    "multi-label": (5, "multi_label_classification"),
}


def test_every_family_has_a_variant() -> None:
    assert {model_type for model_type, _ in VARIANTS.values()} == set(FAMILIES)


@pytest.mark.parametrize("problem", sorted(PROBLEMS))
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_loss_and_gradients_equal_the_padded_reference(variant: str, problem: str) -> None:
    with all_in_float64():
        stock = stock_model(variant, *PROBLEMS[problem])
        ours, view = packed_model(stock, variant)
        for name, lengths in {**LENGTHS, "longest": [longest_row(variant), 3]}.items():
            rows, labels = sequences(lengths), targets(problem, len(lengths))
            stock.zero_grad()
            ours.zero_grad()
            expected = stock(**padded_inputs(stock, rows), labels=labels).loss
            actual = packed_loss(ours, view, rows, labels, problem)
            expected.backward()
            actual.backward()
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
            assert_equal_gradients(ours, stock, name)


def targets(problem: str, count: int) -> torch.Tensor:
    """Return labels of `count` rows, in the form of transformers' loss for the problem."""
    labels, _ = PROBLEMS[problem]
    if problem == "regression":
        return torch.arange(count) % 3 + 0.5
    if problem == "multi-label":
        return ((torch.arange(count)[:, None] + torch.arange(labels)) % 3 == 0).double()
    return torch.arange(count) % labels


def packed_loss(
    model: PreTrainedModel, view: PackedView, rows: list[torch.Tensor], labels: torch.Tensor, problem: str
) -> torch.Tensor:
    """Return ftsys' loss, or for multi-label problems, which ftsys lacks, the model's loss of the packed logits."""
    inputs = packed_inputs(view, rows)
    if problem == "multi-label":
        return model(**inputs, labels=labels).loss
    return loss_per_example(model(**inputs).logits, labels, torch.arange(len(rows))).mean()


def assert_equal_gradients(ours: PreTrainedModel, stock: PreTrainedModel, name: str) -> None:
    for (key, parameter), other in zip(stock.named_parameters(), ours.parameters(), strict=True):
        if parameter.grad is None:
            assert other.grad is None or not other.grad.any(), f"{name}: {key}"
        else:
            torch.testing.assert_close(
                other.grad, parameter.grad, rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"{name} {k}: {m}"
            )
