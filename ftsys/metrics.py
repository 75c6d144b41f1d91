"""Computes the metrics of GLUE and of custom tasks, in this process, without a network, in float64.

The values are those of scikit-learn and scipy. Both take a second or two to import, so they are imported by the first
`compute`. Shapes: S examples, C classes.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ftsys.did_you_mean import nearest
from ftsys.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    Compute = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """A metric: its kind of task, the direction in which it is better, and its function.

    `two_classes` is True for metrics of class 1 against the rest. `compute` takes labels, then predictions, both (S,):
    int64 class ids, or float64 for regression.
    """

    regression: bool
    greater_is_better: bool
    compute: "Compute"
    two_classes: bool = False


def _accuracy(labels_S: "npt.NDArray[Any]", predictions_S: "npt.NDArray[Any]") -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels_S, predictions_S))


def _of_class_one(name: str) -> "Compute":
    """Return a scikit-learn score of class 1 against the rest; the score is 0.0 if its denominator is zero."""

    def compute(labels_S: "npt.NDArray[Any]", predictions_S: "npt.NDArray[Any]") -> float:
        import sklearn.metrics

        return float(getattr(sklearn.metrics, name)(labels_S == 1, predictions_S == 1, zero_division=0.0))

    return compute


def _macro_f1(labels_S: "npt.NDArray[Any]", predictions_S: "npt.NDArray[Any]") -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels_S, predictions_S, average="macro", zero_division=0.0))


def _matthews(labels_S: "npt.NDArray[Any]", predictions_S: "npt.NDArray[Any]") -> float:
    from sklearn.metrics import matthews_corrcoef

    if _constant(labels_S) or _constant(predictions_S):
        return 0.0  # scikit-learn returns the same value, but with a warning that a user cannot act on
    return float(matthews_corrcoef(labels_S, predictions_S))


def _correlation(name: str) -> "Compute":
    """Return scipy's correlation of that name; it is NaN, with one warning, if all values of one side are equal."""

    def compute(labels_S: "npt.NDArray[Any]", predictions_S: "npt.NDArray[Any]") -> float:
        import warnings

        import scipy.stats

        for side, values_S in (("labels", labels_S), ("predictions", predictions_S)):
            if _constant(values_S):
                _warn_once(f"{name} is undefined (null): all {side} are equal")
                return float("nan")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.stats.NearConstantInputWarning)
            return float(getattr(scipy.stats, name)(labels_S, predictions_S).statistic)

    return compute


def _error(name: str) -> "Compute":
    """Return scikit-learn's regression score of that name."""

    def compute(labels_S: "npt.NDArray[Any]", predictions_S: "npt.NDArray[Any]") -> float:
        import sklearn.metrics

        if name == "r2_score" and len(labels_S) < 2:
            _warn_once("r2 is undefined (null): it needs two rows or more")
            return float("nan")
        return float(getattr(sklearn.metrics, name)(labels_S, predictions_S))

    return compute


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": Metric(False, True, _accuracy),
        "f1": Metric(False, True, _of_class_one("f1_score"), two_classes=True),
        "precision": Metric(False, True, _of_class_one("precision_score"), two_classes=True),
        "recall": Metric(False, True, _of_class_one("recall_score"), two_classes=True),
        "macro_f1": Metric(False, True, _macro_f1),
        "matthews_correlation": Metric(False, True, _matthews),
        "pearson": Metric(True, True, _correlation("pearsonr")),
        "spearmanr": Metric(True, True, _correlation("spearmanr")),
        "kendalltau": Metric(True, True, _correlation("kendalltau")),
        "mse": Metric(True, False, _error("mean_squared_error")),
        "rmse": Metric(True, False, _error("root_mean_squared_error")),
        "mae": Metric(True, False, _error("mean_absolute_error")),
        "r2": Metric(True, True, _error("r2_score")),
    }
)
"""Every metric that a task may name."""


def check_metric_names(names: Sequence[str], regression: bool, num_labels: int | None = None) -> None:
    """Raise one ConfigError that lists every name that is unknown or does not fit the kind of task."""
    kind = "regression" if regression else "classification"
    fitting = [name for name, metric in METRICS.items() if metric.regression == regression]
    messages = []
    for name in names:
        metric = METRICS.get(name)
        if metric is None:
            near = nearest(name, fitting) or nearest(name, METRICS)
            hint = f"Did you mean {near!r}?" if near else f"Known for {kind}: {', '.join(fitting)}."
            messages.append(f"task.metrics names {name!r}, which is not a metric. {hint}")
        elif metric.regression != regression:
            other = "regression" if metric.regression else "classification"
            messages.append(
                f"task.metrics names {name!r}, which is for {other}, but the task is {kind}. Use {', '.join(fitting)}."
            )
        elif metric.two_classes and num_labels is not None and num_labels != 2:
            messages.append(
                f"task.metrics names {name!r}, which is for two classes, but the task has {num_labels}. "
                "Use 'macro_f1' or 'accuracy'."
            )
    ConfigError.raise_if(messages)


def compute(names: Sequence[str], predictions: "npt.ArrayLike", labels: "npt.ArrayLike") -> dict[str, float]:
    """Compute the named metrics over S examples.

    `predictions` and `labels` are (S,): class ids, or numbers for regression (compared in float64). An undefined value
    is NaN, with one warning in the log; the run's JSON files have null for it.
    Raises ConfigError for an unknown name, and DataError for no rows, different shapes or rows without a label.
    """
    import numpy as np

    unknown = [name for name in names if name not in METRICS]
    if unknown:
        check_metric_names(unknown, regression=False)
    predictions_S, labels_S = np.asarray(predictions), np.asarray(labels)
    _check_rows(predictions_S, labels_S)
    return {name: _one(name, predictions_S, labels_S) for name in names}


def predictions_from_logits(logits: "npt.ArrayLike", regression: bool) -> "npt.NDArray[Any]":
    """Convert floating-point logits (S, C) to class ids (S,) int64; for regression (S, 1) to numbers (S,) float64."""
    import numpy as np

    logits_SC = np.asarray(logits)
    if logits_SC.ndim != 2 or (regression and logits_SC.shape[1] != 1):
        expected = "(examples, 1)" if regression else "(examples, classes)"
        raise ValueError(f"logits have shape {logits_SC.shape}, not {expected}")
    return logits_SC[:, 0].astype(np.float64) if regression else logits_SC.argmax(axis=1).astype(np.int64)


def _check_rows(predictions_S: "npt.NDArray[Any]", labels_S: "npt.NDArray[Any]") -> None:
    """Raise DataError unless both are (S,) with S > 0 and every row has a label."""
    if predictions_S.shape != labels_S.shape or labels_S.ndim != 1:
        raise DataError(
            f"{predictions_S.shape} predictions cannot be compared with {labels_S.shape} labels: give one each a row."
        )
    if not len(labels_S):
        raise DataError("there are no rows to compute metrics over: give a split that has some.")
    unlabelled = int((labels_S != labels_S).sum() if labels_S.dtype.kind == "f" else (labels_S < 0).sum())
    if unlabelled:
        raise DataError(
            f"{unlabelled} of {len(labels_S)} rows have no label, so no metric can be computed. "
            "Use predict for a split without labels."
        )


def _one(name: str, predictions_S: "npt.NDArray[Any]", labels_S: "npt.NDArray[Any]") -> float:
    """Compute one metric; NaN if predictions are not finite, as those of a diverged model."""
    import numpy as np

    metric = METRICS[name]
    if not metric.regression:
        return metric.compute(labels_S, predictions_S)
    values_S = predictions_S.astype(np.float64)
    lost = int((~np.isfinite(values_S)).sum())
    if lost:
        _warn_once(f"{name} is undefined (null): {lost} of {len(values_S)} predictions are not finite numbers")
        return float("nan")
    return metric.compute(labels_S.astype(np.float64), values_S)


def _constant(values_S: "npt.NDArray[Any]") -> bool:
    """Return True if all values are equal, as those of a single row are."""
    return bool((values_S == values_S[0]).all())


@functools.cache
def _warn_once(message: str) -> None:
    _LOG.warning(message)
