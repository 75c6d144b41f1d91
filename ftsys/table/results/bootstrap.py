"""Compares two sets of predictions of the same examples by a paired bootstrap over seeds and examples.

Each resample draws as many seeds and as many examples as there are, with replacement, the same ones for both sides, so
that what is hard for both cancels out. The interval is that of percentiles, the p value two-sided: twice the smaller
share of resamples on one side of 0 (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapters 13 and 15;
for metrics such as F1, Koehn, EMNLP 2004). With S seeds, resampling shows (S - 1) / S of the variance between seeds, so
with few seeds the interval is somewhat too narrow.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ftsys.table.results.resampled import Floats, Resampled

RESAMPLES = 2000
LEVEL = 0.95

_MOST_WEIGHTS = 500_000
"""Weights of resamples that are computed at a time: 4 MB, which a processor's cache may hold."""


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
    metric: Resampled,
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
    seeds, examples = a_SN.shape[:2]
    once = (np.ones((1, seeds)), np.ones((1, examples)))
    value = float(_differences(a_SN, b_SN, labels_N, metric, *once)[0])
    if not np.isfinite(value):
        return None
    draws = np.random.default_rng(seed)
    found = np.empty(0)
    for start in range(0, 2 * resamples, size := max(1, min(resamples, _MOST_WEIGHTS // examples))):
        drawn = _drawn(draws, min(size, 2 * resamples - start), seeds, examples)
        one = _differences(a_SN, b_SN, labels_N, metric, *drawn)
        found = np.concatenate([found, one[np.isfinite(one)]])[:resamples]
        if len(found) == resamples:
            return _summary(value, found)
    return None


def _drawn(draws: np.random.Generator, resamples: int, seeds: int, examples: int) -> tuple[Floats, Floats]:
    """Return how often each seed (R, S) and each example (R, N) is drawn."""
    weights_RS, weights_RN = np.empty((resamples, seeds)), np.empty((resamples, examples))
    for number in range(resamples):
        weights_RS[number] = np.bincount(draws.integers(0, seeds, seeds), minlength=seeds)
        weights_RN[number] = np.bincount(draws.integers(0, examples, examples), minlength=examples)
    return weights_RS, weights_RN


def _differences(
    a_SN: npt.NDArray[Any],
    b_SN: npt.NDArray[Any],
    labels_N: npt.NDArray[Any],
    metric: Resampled,
    weights_RS: Floats,
    weights_RN: Floats,
) -> Floats:
    """Return the mean of A - B over the seeds that each resample drew, (R,)."""
    pairs = zip(a_SN, b_SN, strict=True)
    by_seed = [metric(labels_N, a_N, weights_RN) - metric(labels_N, b_N, weights_RN) for a_N, b_N in pairs]
    drawn_RS = np.where(weights_RS > 0, weights_RS * np.stack(by_seed, axis=1), 0.0)
    mean: Floats = drawn_RS.sum(axis=1) / weights_RS.shape[1]
    return mean


def _summary(value: float, found: npt.NDArray[np.float64]) -> Difference:
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    one_side = min(int((found <= 0).sum()), int((found >= 0).sum()))
    p = min(1.0, 2 * (one_side + 1) / (len(found) + 1))
    return Difference(value, float(low), float(high), p)
