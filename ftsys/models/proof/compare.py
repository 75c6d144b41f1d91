"""Compares a model's packed results with its padded ones on a few rows: logits, loss and gradients.

Nothing of it remains: the model evaluates meanwhile, and generators, buffers and the training flags are put back.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftsys.data.batching.collate import PackedBatch, PaddedBatch
from ftsys.models.inputs import model_inputs
from ftsys.models.packed import PackedView
from ftsys.models.proof.first_difference import first_difference, loud_layer
from ftsys.models.proof.tolerance import Tolerance, differ

FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model's own code raises where it does not understand a batch."""
MOST_ELEMENTS = 1 << 16
"""Gradients of larger weights are not compared: they would cost as much as the rest of the proof."""


@dataclass(frozen=True)
class _Results:
    """Results of S rows: logits (S, C), the loss where one was asked for, and the gradient of each small weight."""

    logits_SC: Tensor
    loss: Tensor | None
    gradients: dict[str, Tensor]


def why_unproven(
    model: nn.Module, view: PackedView, packed: PackedBatch, padded: PaddedBatch, with_loss: bool
) -> str | None:
    """Return the reason why packed batches do not give the model's own results; None where they do.

    `packed` holds the rows of `padded` and a filler, on the model's device. `with_loss` compares the model's own loss,
    of its labels, with the mean loss of the examples, which a packed step computes. A model that fails on the padded
    rows has no results that packed ones could differ from.
    """
    rows = len(padded.labels_S)
    with undisturbed(model):
        try:
            stock = _results(model, model_inputs(padded, None) | _labels(model, padded, with_loss), rows)
        except torch.OutOfMemoryError:
            raise
        except FAILURES:
            return None
        try:
            ours = _results(model, model_inputs(packed, view), rows)
        except FAILURES as error:
            layer = loud_layer(model, model_inputs(packed, view), FAILURES)
            return f"{layer} does not take packed rows: {_told(error)}"
        tolerance = Tolerance.of(model)
        reason = _difference(stock, ours, padded, tolerance)
        if reason is None:
            return None
        return first_difference(model, view, packed, padded, tolerance) or reason


def _difference(stock: _Results, ours: _Results, padded: PaddedBatch, tolerance: Tolerance) -> str | None:
    if stock.logits_SC.shape != ours.logits_SC.shape:
        return f"logits of packed rows are {list(ours.logits_SC.shape)}, of padded ones {list(stock.logits_SC.shape)}"
    if differ(stock.logits_SC, ours.logits_SC, tolerance.values):
        return "logits of packed rows are others than those of padded ones"
    if stock.loss is not None and differ(stock.loss, _mean_loss(ours.logits_SC, padded.labels_S), tolerance.values):
        return "the model's loss is not the mean over its examples"
    # Some gradients are 0 but for rounding, as that of a bias of keys: the largest one measures them.
    largest = max((float(each.abs().max()) for each in stock.gradients.values()), default=0.0)
    for name, gradient in stock.gradients.items():
        if differ(gradient, ours.gradients[name], tolerance.gradients, floor=largest * tolerance.gradients):
            return f"the gradient of {name} is another one for packed rows"
    return None


def _results(model: nn.Module, inputs: dict[str, Any], rows: int) -> _Results:
    """Run the model on one batch whose first `rows` sequences are the examples."""
    weights = {
        name: weight
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.numel() <= MOST_ELEMENTS and not weight._backward_hooks
    }
    found: Sequence[Tensor | None] = [None] * len(weights)
    with torch.enable_grad():
        outputs = model(**inputs)
        logits_SC = outputs.logits[:rows]
        # Each logit has another weight, so that no two gradients cancel.
        share_SC = torch.arange(1, logits_SC.numel() + 1, device=logits_SC.device).view_as(logits_SC)
        if weights and logits_SC.requires_grad:
            found = torch.autograd.grad((logits_SC * share_SC).sum(), list(weights.values()), allow_unused=True)
    gradients = {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
    }
    return _Results(logits_SC.detach(), getattr(outputs, "loss", None), gradients)


def _labels(model: nn.Module, padded: PaddedBatch, with_loss: bool) -> dict[str, Tensor]:
    if not with_loss:
        return {}
    labels_S = padded.labels_S
    return {"labels": labels_S.to(next(model.parameters()).dtype) if labels_S.is_floating_point() else labels_S}


def _mean_loss(logits_SC: Tensor, labels_S: Tensor) -> Tensor:
    logits_SC = logits_SC if logits_SC.dtype == torch.float64 else logits_SC.float()
    if labels_S.is_floating_point():
        return nn.functional.mse_loss(logits_SC[:, 0], labels_S.to(logits_SC.dtype))
    return nn.functional.cross_entropy(logits_SC, labels_S)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Let `model` evaluate in the body, without autocast; then put back flags, buffers and generators."""
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.autocast(device.type, enabled=False):
            model.eval()
            yield
    finally:
        for module, training in flags:
            module.training = training
        for module, name, buffer, before in buffers:
            module._buffers[name] = buffer
            if not torch.equal(buffer, before):
                buffer.copy_(before)
