"""Computes the figures of a report in float64. Shapes: N examples, C classes, B bins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftsys.calibrate.temperature import BINS

Floats = npt.NDArray[np.float64]


def confusion(labels_N: npt.ArrayLike, predictions_N: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """Count the examples (C, C) by label, which is the row, and by prediction, which is the column."""
    pairs_N = np.asarray(labels_N, np.int64) * classes + np.asarray(predictions_N, np.int64)
    counts_CC: npt.NDArray[np.int64] = np.bincount(pairs_N, minlength=classes**2).reshape(classes, classes)
    return counts_CC


@dataclass(frozen=True)
class PerClass:
    """Precision, recall, F1 and support, each (C,). A score whose denominator is zero is 0."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: npt.NDArray[np.int64]


def per_class(labels_N: npt.ArrayLike, predictions_N: npt.ArrayLike, classes: int) -> PerClass:
    """Compute the scores of each class against the rest, in memory that grows with the classes, not their square."""
    has_N, found_N = np.asarray(labels_N, np.int64), np.asarray(predictions_N, np.int64)
    counted = (has_N[has_N == found_N], has_N, found_N)
    right_C, support_C, predicted_C = (np.bincount(each, minlength=classes) for each in counted)
    return PerClass(
        _ratio(right_C, predicted_C),
        _ratio(right_C, support_C),
        _ratio(2 * right_C, support_C + predicted_C),
        support_C,
    )


def label_counts(labels_NC: npt.ArrayLike, predictions_NC: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Count true positives, false negatives, false positives and true negatives of each label: (C, 4)."""
    has_NC, found_NC = np.asarray(labels_NC) > 0, np.asarray(predictions_NC) > 0
    kinds = (has_NC & found_NC, has_NC & ~found_NC, ~has_NC & found_NC, ~has_NC & ~found_NC)
    counts_C4: npt.NDArray[np.int64] = np.stack([kind.sum(axis=0) for kind in kinds], axis=1)
    return counts_C4


def per_label(counts_C4: npt.NDArray[np.int64]) -> PerClass:
    """Compute the scores of each label from its counts by `label_counts`."""
    right_C, missed_C, wrong_C, _ = counts_C4.T
    both_C = 2 * right_C + missed_C + wrong_C
    support_C = right_C + missed_C
    return PerClass(
        _ratio(right_C, right_C + wrong_C), _ratio(right_C, support_C), _ratio(2 * right_C, both_C), support_C
    )


def average_precisions(labels_NC: npt.NDArray[np.generic], scores_NC: Floats) -> Floats:
    """Compute the average precision of each label (C,); NaN for one that no example has, or whose scores are NaN."""
    from sklearn.metrics import average_precision_score

    found_C = np.full(labels_NC.shape[1], np.nan)
    for label, (has_N, scores_N) in enumerate(zip(np.asarray(labels_NC).T, scores_NC.T, strict=True)):
        if has_N.any() and np.isfinite(scores_N).all():
            found_C[label] = average_precision_score(has_N, scores_N)
    return found_C


def _ratio(above: npt.NDArray[np.generic], below: npt.NDArray[np.generic]) -> Floats:
    ratio: Floats = np.divide(above, below, out=np.zeros(above.shape, np.float64), where=np.asarray(below) != 0)
    return ratio


@dataclass(frozen=True)
class Reliability:
    """Examples by the probability of the predicted class, in B bins of equal width.

    `count` (B,) examples, `confidence` (B,) mean probability, `accuracy` (B,) share that is right; 0 in empty bins.
    `ece` is the expected calibration error: the mean of |accuracy - confidence| over the bins, weighted by `count`.
    """

    count: npt.NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    ece: float


def reliability(scores_NC: Floats, labels_N: npt.ArrayLike, bins: int = BINS) -> Reliability:
    """Compute the bins. The first one is closed at 0, and each one has its upper edge: (0.8, 0.9]."""
    confidence_N = scores_NC.max(axis=1)
    right_N = (scores_NC.argmax(axis=1) == np.asarray(labels_N)).astype(np.float64)
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    count_B: npt.NDArray[np.int64] = np.bincount(bin_N, minlength=bins)
    mean_B = _ratio(np.bincount(bin_N, confidence_N, bins), count_B)
    accuracy_B = _ratio(np.bincount(bin_N, right_N, bins), count_B)
    return Reliability(count_B, mean_B, accuracy_B, float(np.abs(accuracy_B - mean_B) @ count_B / max(len(bin_N), 1)))


def losses(scores_NC: Floats, labels_N: npt.NDArray[np.generic]) -> Floats:
    """Return the cross-entropy (N,) of each example from rounded probabilities; a probability of 0 counts as 1e-12."""
    right_N = np.take_along_axis(scores_NC, labels_N.astype(np.int64)[:, None], axis=1)[:, 0]
    found: Floats = -np.log(np.maximum(right_N, 1e-12))
    return found


def label_losses(scores_NC: Floats, labels_NC: npt.NDArray[np.generic]) -> Floats:
    """Return the binary cross-entropy (N,) of each example, the mean over its labels; as `losses`."""
    right_NC = np.where(np.asarray(labels_NC) > 0, scores_NC, 1.0 - scores_NC)
    found: Floats = -np.log(np.maximum(right_NC, 1e-12)).mean(axis=1)
    return found


@dataclass(frozen=True)
class Packing:
    """Tokens of an epoch: the real ones, and those that a padded batch would compute."""

    examples: int
    real: int
    longest: int
    padded_to_longest: float
    padded_to_maximum: int


def packing(lengths: Sequence[int], batch: int, maximum: int) -> Packing:
    """Return what padding would compute for examples of these lengths; `lengths[n]` is the number of n tokens.

    Padded to the longest of a batch: the expected maximum of `batch` lengths drawn at random, with replacement, for
    each example. Padded to the maximum: every example has `maximum` tokens.
    """
    counts_L = np.asarray(lengths, np.float64)
    examples = int(counts_L.sum())
    real = int(counts_L @ np.arange(len(counts_L)))
    if not examples:
        return Packing(0, 0, 0, 0.0, 0)
    below_L = np.concatenate([[0.0], np.cumsum(counts_L)[:-1] / examples])  # share of examples shorter than n
    expected = float((1.0 - below_L[1:] ** batch).sum()) if len(below_L) > 1 else 0.0
    longest = int(np.flatnonzero(counts_L)[-1])
    return Packing(examples, real, longest, expected * examples, maximum * examples)
