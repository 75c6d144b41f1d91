"""Computes the loss of each example. The training step alone scales it to the mean over the global batch.

Where the model forms its own loss, `gives_mean_of_batch` tells its scale.
"""

import inspect
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ftsys.data.batching.collate import NO_EXAMPLE
from ftsys.train.trainer.packing_rules import without_adapters


def loss_per_example(
    logits_SC: torch.Tensor,
    labels_S: torch.Tensor,
    example_ids_S: torch.Tensor,
    label_smoothing: float = 0.0,
    weights_C: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the loss of each sequence (S,), zero for fillers, by the kind of its labels.

    Class ids (S,): cross-entropy, -log softmax(logits)[label]. Floats (S,): squared error, (logit - label)^2. Floats
    (S, C) of 1 and 0: the mean over the labels of the binary cross-entropy. All as
    `AutoModelForSequenceClassification` defines them, before its mean over the batch; in float32, or in float64 where
    the logits are.

    `label_smoothing` is the part of a label's weight that is spread over all classes (Szegedy et al. 2016).
    `weights_C` are the `weight` of torch's `CrossEntropyLoss`, whose division by the sum of the weights is left to the
    caller, or the `pos_weight` of its `BCEWithLogitsLoss`.
    """
    logits_SC = logits_SC if logits_SC.dtype == torch.float64 else logits_SC.float()
    weights_C = None if weights_C is None else weights_C.to(logits_SC.dtype)
    if labels_S.dim() == 2:
        targets_SC = labels_S.to(logits_SC.dtype)
        losses_SC = functional.binary_cross_entropy_with_logits(
            logits_SC, targets_SC, reduction="none", pos_weight=weights_C
        )
        losses_S = losses_SC.mean(1)
    elif labels_S.is_floating_point():
        losses_S = functional.mse_loss(logits_SC[:, 0], labels_S.to(logits_SC.dtype), reduction="none")
    else:
        losses_S = functional.cross_entropy(
            logits_SC, labels_S, weights_C, reduction="none", label_smoothing=label_smoothing
        )
    return losses_S * (example_ids_S != NO_EXAMPLE)


def gives_mean_of_batch(model: nn.Module) -> bool:
    """Return True for a sequence classifier of transformers, also in a subclass or with adapters.

    transformers reads `**kwargs` of its forward as "scales its own loss", and multiplies loss and gradient by ranks x
    accumulation (its issue 47688). A class that says itself what it does with `num_items_in_batch` is left alone.
    """
    inner = without_adapters(model)
    told = hasattr(inner, "accepts_loss_kwargs") or "num_items_in_batch" in inspect.signature(inner.forward).parameters
    return not told and any(kind.__name__.endswith("ForSequenceClassification") for kind in type(inner).__mro__)


class ClassWeights:
    """The weights of a training's classes, on the device that asks for them. Without values there are none."""

    def __init__(self, values: Sequence[float] | None) -> None:
        self.values = None if values is None else tuple(values)
        self._on: dict[torch.device, torch.Tensor] = {}

    def on(self, device: torch.device) -> torch.Tensor | None:
        """Return the weights (C,) in float64; None if there are none. Kept: a recorded pass reads the same memory."""
        if self.values is None:
            return None
        if device not in self._on:
            self._on[device] = torch.tensor(self.values, dtype=torch.float64, device=device)
        return self._on[device]
