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
from ftsys.tasks import Kind, Task

if TYPE_CHECKING:
    import numpy.typing as npt

    Compute = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]

_LOG = logging.getLogger(__name__)
_CLASS: tuple[Kind, ...] = ("class",)
_NUMBER: tuple[Kind, ...] = ("number",)
_LABELS: tuple[Kind, ...] = ("labels",)
_KINDS: Mapping[Kind, str] = MappingProxyType(
    {"class": "classification", "number": "regression", "labels": "multi-label classification"}
)


@dataclass(frozen=True)
class Metric:
    """A metric: the kinds of tasks it is for, the direction in which it is better, and its function.

    `two_classes` is True for metrics of class 1 against the rest. `compute` takes labels, then predictions, both (S,):
    int64 class ids, or float64 for regression; of several labels both are (S, C), and predictions are 1 and 0, or the
    logits in float64 where `of_logits` is True.
    """

    kinds: tuple[Kind, ...]
    greater_is_better: bool
    compute: "Compute"
    two_classes: bool = False
    of_logits: bool = False

    @property
    def regression(self) -> bool:
        """True for a metric of numbers."""
        return "number" in self.kinds


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


def _micro_f1(labels_SC: "npt.NDArray[Any]", predictions_SC: "npt.NDArray[Any]") -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels_SC, predictions_SC, average="micro", zero_division=0.0))


def _average_precision(labels_SC: "npt.NDArray[Any]", logits_SC: "npt.NDArray[Any]") -> float:
    """Return the mean over all labels of their average precision; 0.0 of a label that no example has."""
    import warnings

    from sklearn.metrics import average_precision_score

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No positive class found in y_true", UserWarning)  # the preflight says it
        return float(average_precision_score(labels_SC, logits_SC, average="macro"))


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
        "accuracy": Metric(_CLASS, True, _accuracy),
        "f1": Metric(_CLASS, True, _of_class_one("f1_score"), two_classes=True),
        "precision": Metric(_CLASS, True, _of_class_one("precision_score"), two_classes=True),
        "recall": Metric(_CLASS, True, _of_class_one("recall_score"), two_classes=True),
        "macro_f1": Metric(("class", "labels"), True, _macro_f1),
        "matthews_correlation": Metric(_CLASS, True, _matthews),
        "pearson": Metric(_NUMBER, True, _correlation("pearsonr")),
        "spearmanr": Metric(_NUMBER, True, _correlation("spearmanr")),
        "kendalltau": Metric(_NUMBER, True, _correlation("kendalltau")),
        "mse": Metric(_NUMBER, False, _error("mean_squared_error")),
        "rmse": Metric(_NUMBER, False, _error("root_mean_squared_error")),
        "mae": Metric(_NUMBER, False, _error("mean_absolute_error")),
        "r2": Metric(_NUMBER, True, _error("r2_score")),
        "micro_f1": Metric(_LABELS, True, _micro_f1),
        "subset_accuracy": Metric(_LABELS, True, _accuracy),
        "average_precision": Metric(_LABELS, True, _average_precision, of_logits=True),
    }
)
"""Every metric that a task may name."""


def check_metric_names(
    names: Sequence[str], regression: bool, num_labels: int | None = None, multi_label: bool = False
) -> None:
    """Raise one ConfigError that lists every name that is unknown or does not fit the kind of task."""
    wanted: Kind = "number" if regression else "labels" if multi_label else "class"
    kind = _KINDS[wanted]
    fitting = [name for name, metric in METRICS.items() if wanted in metric.kinds]
    messages = []
    for name in names:
        metric = METRICS.get(name)
        if metric is None:
            near = nearest(name, fitting) or nearest(name, METRICS)
            hint = f"Did you mean {near!r}?" if near else f"Known for {kind}: {', '.join(fitting)}."
            messages.append(f"task.metrics names {name!r}, which is not a metric. {hint}")
        elif wanted not in metric.kinds:
            other = _KINDS[metric.kinds[0]]
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

    `predictions` and `labels` are (S,): class ids, or numbers for regression (compared in float64). Of several labels,
    both are (S, C): logits, of which those above 0 are predicted, and 1 and 0. An undefined value is NaN, with one
    warning in the log; the run's JSON files have null for it.
    Raises ConfigError for an unknown name, and DataError for no rows, different shapes or rows without a label.
    """
    import numpy as np

    unknown = [name for name in names if name not in METRICS]
    if unknown:
        check_metric_names(unknown, regression=False)
    predictions_S, labels_S = np.asarray(predictions), np.asarray(labels)
    _check_rows(predictions_S, labels_S, several=bool(names) and all("labels" in METRICS[name].kinds for name in names))
    return {name: _one(name, predictions_S, labels_S) for name in names}


def metrics_of_logits(task: Task, logits: "npt.ArrayLike", labels: "npt.ArrayLike") -> dict[str, float]:
    """Compute a task's metrics from logits (S, C) and labels, as `compute` does.

    Of a class too, a metric is NaN if a logit is NaN: the largest of such logits is no answer of the model.
    """
    import numpy as np

    predictions = predictions_from_logits(logits, task.regression, task.multi_label)
    found = compute(task.metrics, predictions, labels)
    lost = int(np.isnan(np.asarray(logits)).any(axis=1).sum())
    if not lost or task.regression or task.multi_label:
        return found
    _warn_once(f"{', '.join(found)}: undefined (null), because {lost} of {len(predictions)} rows have logits of NaN")
    return dict.fromkeys(found, float("nan"))


def predictions_from_logits(logits: "npt.ArrayLike", regression: bool, multi_label: bool = False) -> "npt.NDArray[Any]":
    """Convert floating-point logits (S, C) to class ids (S,) int64; for regression (S, 1) to numbers (S,) float64.

    Of several labels they stay logits (S, C), in float64, from which `compute` takes its decisions.
    """
    import numpy as np

    logits_SC = np.asarray(logits)
    if logits_SC.ndim != 2 or (regression and logits_SC.shape[1] != 1):
        expected = "(examples, 1)" if regression else "(examples, classes)"
        raise ValueError(f"logits have shape {logits_SC.shape}, not {expected}")
    if multi_label:
        return logits_SC.astype(np.float64)
    return logits_SC[:, 0].astype(np.float64) if regression else logits_SC.argmax(axis=1).astype(np.int64)


def _check_rows(predictions_S: "npt.NDArray[Any]", labels_S: "npt.NDArray[Any]", several: bool) -> None:
    """Raise DataError unless both are (S,), or with `several` (S, C), with S > 0 and every row has a label."""
    if predictions_S.shape != labels_S.shape or labels_S.ndim != (2 if several and labels_S.ndim == 2 else 1):
        raise DataError(
            f"{predictions_S.shape} predictions cannot be compared with {labels_S.shape} labels: give one each a row."
        )
    if not len(labels_S):
        raise DataError("there are no rows to compute metrics over: give a split that has some.")
    first_S = labels_S if labels_S.ndim == 1 else labels_S[:, 0]  # all values of an unlabelled row are -1
    unlabelled = int((first_S != first_S).sum() if labels_S.dtype.kind == "f" else (first_S < 0).sum())
    if unlabelled:
        raise DataError(
            f"{unlabelled} of {len(labels_S)} rows have no label, so no metric can be computed. "
            "Use predict for a split without labels."
        )


def _one(name: str, predictions_S: "npt.NDArray[Any]", labels_S: "npt.NDArray[Any]") -> float:
    """Compute one metric; NaN if predictions are not finite, as those of a diverged model."""
    import numpy as np

    metric, several = METRICS[name], labels_S.ndim == 2
    if not (metric.regression or several):
        return metric.compute(labels_S, predictions_S)
    values_S = predictions_S.astype(np.float64)
    lost = int((~np.isfinite(values_S)).reshape(len(values_S), -1).any(axis=1).sum())
    if lost:
        _warn_once(f"{name} is undefined (null): {lost} of {len(values_S)} predictions are not finite numbers")
        return float("nan")
    if several:
        return metric.compute(labels_S, values_S if metric.of_logits else (values_S > 0).astype(labels_S.dtype))
    return metric.compute(labels_S.astype(np.float64), values_S)


def _constant(values_S: "npt.NDArray[Any]") -> bool:
    """Return True if all values are equal, as those of a single row are."""
    return bool((values_S == values_S[0]).all())


@functools.cache
def _warn_once(message: str) -> None:
    _LOG.warning(message)
