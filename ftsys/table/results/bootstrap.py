"""Compares two sets of predictions of the same examples by a paired bootstrap over seeds and examples.

Each resample draws as many seeds and as many examples as there are, with replacement, the same ones for both sides, so
that what is hard for both cancels out. The interval is that of percentiles, the p value two-sided: twice the smaller
share of resamples on one side of 0 (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapters 13 and 15;
for metrics such as F1, Koehn, EMNLP 2004). With S seeds, resampling shows (S - 1) / S of the variance between seeds, so
with few seeds the interval is somewhat too narrow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95

Metric = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]
"""A function of labels and predictions, both (N,), or (N, C) of several labels."""


@dataclass(frozen=True)
class Difference:
    """The mean of A - B over seeds, its interval, and the p value of the hypothesis that it is 0."""

    value: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    a_SN: npt.NDArray[Any],
    b_SN: npt.NDArray[Any],
    labels_N: npt.NDArray[Any],
    metric: Metric,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference | None:
    """Compare predictions (S seeds, N examples) of A and B; computed in float64, the same for the same arguments.

    Of C labels an example, predictions are (S, N, C) and labels (N, C): an example is drawn with all its labels.

    A resample in which the metric is undefined is drawn again, up to as many times as there are resamples. None where
    the metric is undefined for the predictions themselves or for most resamples. Raises ValueError for other shapes.
    """
    if a_SN.shape != b_SN.shape or a_SN.shape[1:] != labels_N.shape or not a_SN.size:
        raise ValueError(f"predictions {a_SN.shape} and {b_SN.shape} do not fit labels {labels_N.shape}")
    value = _difference(a_SN, b_SN, labels_N, metric)
    if not np.isfinite(value):
        return None
    draws = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(2 * resamples):
        if len(found) == resamples:
            break
        rows, columns = (draws.integers(0, size, size) for size in a_SN.shape[:2])
        one = _difference(a_SN[np.ix_(rows, columns)], b_SN[np.ix_(rows, columns)], labels_N[columns], metric)
        if np.isfinite(one):
            found.append(one)
    return _summary(value, np.array(found)) if len(found) == resamples else None


def _difference(a_SN: npt.NDArray[Any], b_SN: npt.NDArray[Any], labels_N: npt.NDArray[Any], metric: Metric) -> float:
    pairs = zip(a_SN, b_SN, strict=True)
    return float(np.mean([metric(labels_N, a_N) - metric(labels_N, b_N) for a_N, b_N in pairs], dtype=np.float64))


def _summary(value: float, found: npt.NDArray[np.float64]) -> Difference:
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    one_side = min(int((found <= 0).sum()), int((found >= 0).sum()))
    p = min(1.0, 2 * (one_side + 1) / (len(found) + 1))
    return Difference(value, float(low), float(high), p)
