"""Chooses the score from which on a label is predicted, so that a metric is greatest. N rows, K candidates."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def _f1(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _mcc(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    return _ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


def _accuracy(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    return _ratio(tp + tn, tp + fp + fn + tn)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient, and 0 where the denominator is 0, as scikit-learn does."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


METRICS: Mapping[str, Callable[[Floats, Floats, Floats, Floats], Floats]] = MappingProxyType(
    {"f1": _f1, "mcc": _mcc, "accuracy": _accuracy}
)
"""The metrics to choose a threshold for: functions of the numbers of true positives, false positives, false negatives
and true negatives, each (K,) float64."""


def metric_value(metric: str, predicted_N: Bools, truth_N: Bools) -> float:
    """Return a metric of predictions of one label."""
    counts = [(predicted_N & truth_N), (predicted_N & ~truth_N), (~predicted_N & truth_N), (~predicted_N & ~truth_N)]
    return float(METRICS[metric](*(np.array([rows.sum()], np.float64) for rows in counts))[0])


def best_threshold(metric: str, scores_N: Floats, truth_N: Bools) -> float:
    """Return the threshold with the greatest metric; of equal ones, that nearest to 0.5.

    `scores_N` are from 0 to 1. The label is predicted where the score is at least the threshold. Candidates lie in the
    middle between neighbouring scores, below the lowest, and above the highest unless that is 1.
    """
    values, at_N = np.unique(scores_N, return_inverse=True)
    rows, positive = (np.bincount(at_N, weights=weights, minlength=len(values)) for weights in (None, truth_N))
    edges = np.concatenate([[0.0], values, [1.0]])
    candidates_K = (edges[:-1] + edges[1:]) / 2
    below, positive_below = (np.concatenate([[0.0], np.cumsum(count)]) for count in (rows, positive))
    tp, fn = positive_below[-1] - positive_below, positive_below
    predicted = below[-1] - below
    value_K = METRICS[metric](tp, predicted - tp, fn, below - fn)
    if values[-1] == 1.0:
        candidates_K, value_K = candidates_K[:-1], value_K[:-1]
    best_K = candidates_K[value_K >= value_K.max() - 1e-12]
    return float(best_K[np.abs(best_K - 0.5).argmin()])
