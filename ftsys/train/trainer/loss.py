"""Computes the loss of each example. The training step alone scales it to the mean over the global batch."""

import torch
from torch.nn import functional

from ftsys.data.batching.collate import NO_EXAMPLE


def loss_per_example(
    logits_SC: torch.Tensor, labels_S: torch.Tensor, example_ids_S: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return the loss of each sequence (S,), zero for fillers: squared error for floating labels, else cross-entropy.

    Computed in float32, or in float64 where the logits are. Classes: -log softmax(logits)[label]; regression:
    (logit - label)^2. Both as `AutoModelForSequenceClassification` defines them, before its mean over the batch.
    `label_smoothing` is the part of a label's weight that is spread over all classes (Szegedy et al. 2016).
    """
    logits_SC = logits_SC if logits_SC.dtype == torch.float64 else logits_SC.float()
    if labels_S.is_floating_point():
        losses_S = functional.mse_loss(logits_SC[:, 0], labels_S.to(logits_SC.dtype), reduction="none")
    else:
        losses_S = functional.cross_entropy(logits_SC, labels_S, reduction="none", label_smoothing=label_smoothing)
    return losses_S * (example_ids_S != NO_EXAMPLE)
