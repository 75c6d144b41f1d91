"""Computes metrics of many resamples of the same examples at once, by the number of times that each example was drawn.

Shapes: R resamples, N examples, C classes or labels, U different values. Weights (R, N) are whole numbers; each row
sums to N. A metric that is not in the table is computed resample by resample.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ftsys.metrics import compute

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Resampled = Callable[[Array, Array, Floats], Floats]
"""A function of labels and predictions, (N,) or (N, C), and weights (R, N), that returns values (R,)."""


def resampled(name: str) -> Resampled:
    """Return the metric of that name for resamples; its values are those of `ftsys.metrics`, NaN where undefined."""
    return _FAST.get(name) or partial(_one_by_one, name)


def _one_by_one(name: str, labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    values = []
    for weights_N in weights_RN.astype(np.int64):
        drawn = np.repeat(np.arange(len(weights_N)), weights_N)
        values.append(compute((name,), predictions_N[drawn], labels_N[drawn])[name])
    return np.array(values, np.float64)


def _accuracy(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    right_N = (labels_N == predictions_N).reshape(len(labels_N), -1).all(axis=1)
    return _mean(right_N, weights_RN)


def _mean(values_N: Array, weights_RN: Floats) -> Floats:
    mean: Floats = weights_RN @ values_N.astype(np.float64) / weights_RN.shape[1]
    return mean


def _counts(has_NC: Array, found_NC: Array, weights_RN: Floats) -> tuple[Floats, Floats, Floats]:
    """Return true positives, labels and predictions of each class, (R, C) each."""
    both, has, found = (weights_RN @ one.astype(np.float64) for one in (has_NC & found_NC, has_NC, found_NC))
    return both, has, found


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return the quotient, 0 where the denominator is 0."""
    ratio: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return ratio


def _f1(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    both, has, found = _counts(labels_N == 1, predictions_N == 1, weights_RN)
    return _ratio(2 * both, has + found)


def _precision(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    both, _, found = _counts(labels_N == 1, predictions_N == 1, weights_RN)
    return _ratio(both, found)


def _recall(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    both, has, _ = _counts(labels_N == 1, predictions_N == 1, weights_RN)
    return _ratio(both, has)


def _micro_f1(labels_NC: Array, predictions_NC: Array, weights_RN: Floats) -> Floats:
    both, has, found = (one.sum(axis=1) for one in _counts(labels_NC == 1, predictions_NC == 1, weights_RN))
    return _ratio(2 * both, has + found)


def _macro_f1(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    """Average over all labels, or over those classes that the resample has as a label or as a prediction."""
    if labels_N.ndim == 2:
        both, has, found = _counts(labels_N == 1, predictions_N == 1, weights_RN)
        return _ratio(2 * both, has + found).mean(axis=1)
    both, has, found = _counts(*_one_hot(labels_N, predictions_N), weights_RN)
    there: Floats = (has + found > 0).sum(axis=1).astype(np.float64)
    return _ratio(2 * both, has + found).sum(axis=1) / there


def _one_hot(labels_N: Array, predictions_N: Array) -> tuple[Array, Array]:
    classes_C = np.unique(np.concatenate([labels_N, predictions_N]))
    return labels_N[:, None] == classes_C, predictions_N[:, None] == classes_C


def _matthews(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    """Compute the coefficient of Gorodkin (2004) for any number of classes; 0 where one side is constant."""
    both, has, found = _counts(*_one_hot(labels_N, predictions_N), weights_RN)
    examples = float(weights_RN.shape[1])
    spreads = [examples**2 - (one**2).sum(axis=1) for one in (has, found)]
    return _ratio(both.sum(axis=1) * examples - (has * found).sum(axis=1), np.sqrt(spreads[0] * spreads[1]))


def _pearson(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    constant_R = _is_constant(labels_N, weights_RN) | _is_constant(predictions_N, weights_RN)
    one_N, other_N = (side_N - side_N.mean(dtype=np.float64) for side_N in (labels_N, predictions_N))
    return np.where(constant_R, np.nan, _correlation(one_N[None], other_N[None], weights_RN))


def _spearman(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    """Correlate the ranks within each resample; equal values have the mean of their ranks."""
    constant_R = _is_constant(labels_N, weights_RN) | _is_constant(predictions_N, weights_RN)
    ranks = _correlation(_ranks(labels_N, weights_RN), _ranks(predictions_N, weights_RN), weights_RN)
    return np.where(constant_R, np.nan, ranks)


def _ranks(values_N: Array, weights_RN: Floats) -> Floats:
    """Return the rank (R, N) of each example in each resample, minus the mean rank."""
    order_N = np.argsort(values_N, kind="stable")
    _, first_U, inverse_N = np.unique(values_N[order_N], return_index=True, return_inverse=True)
    drawn_RU = np.add.reduceat(weights_RN[:, order_N], first_U, axis=1)
    ranks_RU = np.cumsum(drawn_RU, axis=1) - drawn_RU / 2 - weights_RN.shape[1] / 2
    ranks_RN = np.empty_like(weights_RN)
    ranks_RN[:, order_N] = ranks_RU[:, inverse_N]
    return ranks_RN


def _correlation(one_RN: Floats, other_RN: Floats, weights_RN: Floats) -> Floats:
    """Return Pearson's correlation of values (R, N) or (1, N), which are near their mean."""
    weights = weights_RN / weights_RN.shape[1]
    mean_one, mean_other = (
        np.einsum("rn,rn->r", weights, np.broadcast_to(x, weights.shape)) for x in (one_RN, other_RN)
    )
    one, other = one_RN - mean_one[:, None], other_RN - mean_other[:, None]
    both, squares, others = (
        np.einsum("rn,rn,rn->r", weights, x, y) for x, y in ((one, other), (one, one), (other, other))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = both / np.sqrt(squares * others)
    return found


def _is_constant(values_N: Array, weights_RN: Floats) -> npt.NDArray[np.bool_]:
    drawn_RN = weights_RN > 0
    ends = [edge(np.where(drawn_RN, values_N, fill), axis=1) for edge, fill in ((np.min, np.inf), (np.max, -np.inf))]
    same: npt.NDArray[np.bool_] = ends[0] == ends[1]
    return same


def _mse(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    return _mean((labels_N.astype(np.float64) - predictions_N) ** 2, weights_RN)


def _mae(labels_N: Array, predictions_N: Array, weights_RN: Floats) -> Floats:
    return _mean(np.abs(labels_N.astype(np.float64) - predictions_N), weights_RN)


def _average_precision(labels_NC: Array, scores_NC: Array, weights_RN: Floats) -> Floats:
    by_label = [
        _precision_of_label(has_N == 1, scores_N, weights_RN)
        for has_N, scores_N in zip(labels_NC.T, scores_NC.T, strict=True)
    ]
    mean: Floats = np.mean(by_label, axis=0)
    return mean


def _precision_of_label(has_N: Array, scores_N: Array, weights_RN: Floats) -> Floats:
    """Return the average precision (R,): the mean over P examples with the label of the precision at their score."""
    order_N = np.argsort(-scores_N, kind="stable")
    falling_N = -scores_N[order_N]
    with_label_P = np.flatnonzero(has_N[order_N])
    end_P = np.searchsorted(falling_N, falling_N[with_label_P], side="right") - 1  # the last example of equal score
    last_P = np.searchsorted(with_label_P, end_P, side="right") - 1
    drawn_RP = weights_RN[:, order_N[with_label_P]]
    right_RP = np.cumsum(drawn_RP, axis=1)[:, last_P]
    precision_RP = _ratio(right_RP, np.cumsum(weights_RN[:, order_N], axis=1)[:, end_P])
    return _ratio((drawn_RP * precision_RP).sum(axis=1), drawn_RP.sum(axis=1))


_FAST: Mapping[str, Resampled] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "precision": _precision,
    "recall": _recall,
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews,
    "pearson": _pearson,
    "spearmanr": _spearman,
    "mse": _mse,
    "rmse": lambda *arguments: np.sqrt(_mse(*arguments)),
    "mae": _mae,
    "micro_f1": _micro_f1,
    "subset_accuracy": _accuracy,
    "average_precision": _average_precision,
}
