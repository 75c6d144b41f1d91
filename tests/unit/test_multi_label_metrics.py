"""Tests the metrics of several labels a row against formulas in float64, and against scikit-learn's own values."""

import logging
import math
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics

from ftsys import metrics
from ftsys.errors import ConfigError, DataError
from ftsys.metrics import METRICS, check_metric_names, compute, predictions_from_logits

Array = npt.NDArray[np.float64]
NAMES = [name for name, metric in METRICS.items() if "labels" in metric.kinds]


def _f1(labels: Array, said: Array) -> float:
    right = (labels * said).sum()
    below = labels.sum() + said.sum()
    return float(2 * right / below) if below else 0.0


def _average_precision(labels: Array, logits: Array) -> float:
    """Sum over thresholds of (growth of the recall) * precision; equal logits share a threshold."""
    total, before, area = labels.sum(), 0.0, 0.0
    for threshold in sorted(set(logits.tolist()), reverse=True):
        said = logits >= threshold
        right = float((labels * said).sum())
        area += (right - before) / total * right / float(said.sum()) if total else 0.0
        before = right
    return area


def _mean_over_labels(of_one: Callable[[Array, Array], float], labels: Array, values: Array) -> float:
    return float(np.mean([of_one(labels[:, each], values[:, each]) for each in range(labels.shape[1])]))


REFERENCES: dict[str, Callable[[Array, Array], float]] = {
    "micro_f1": lambda labels, logits: _f1(labels.ravel(), (logits > 0).ravel().astype(float)),
    "macro_f1": lambda labels, logits: _mean_over_labels(_f1, labels, (logits > 0).astype(float)),
    "subset_accuracy": lambda labels, logits: float(((logits > 0) == labels).all(axis=1).mean()),
    "average_precision": lambda labels, logits: _mean_over_labels(_average_precision, labels, logits),
}


def _outputs(rows: int, labels: int, seed: int) -> tuple[Array, npt.NDArray[np.int8]]:
    """Logits with many ties that know something of the labels, which are rarer from label to label."""
    generator = np.random.default_rng(seed)
    known = (generator.uniform(size=(rows, labels)) < np.linspace(0.6, 0.1, labels)).astype(np.int8)
    return np.round(generator.normal(-0.5, 1, (rows, labels)) + 1.5 * known, 1), known


def _sklearn(name: str, labels: npt.NDArray[np.int8], logits: Array) -> float:
    if name == "average_precision":
        return float(sklearn.metrics.average_precision_score(labels, logits, average="macro"))
    if name == "subset_accuracy":
        return float(sklearn.metrics.accuracy_score(labels, logits > 0))
    return float(sklearn.metrics.f1_score(labels, logits > 0, average=name.partition("_")[0], zero_division=0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "labels"), [(61, 2), (40, 7), (12, 300)])
def test_every_metric_is_the_formula(name: str, rows: int, labels: int) -> None:
    logits, known = _outputs(rows, labels, seed=rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, for labels that no row has
        expected = _sklearn(name, known, logits)
    found = compute([name], predictions_from_logits(logits.astype(np.float32), False, multi_label=True), known)[name]
    assert found == pytest.approx(expected, rel=1e-12)
    assert found == pytest.approx(REFERENCES[name](known.astype(float), logits), rel=1e-12)


def test_edges_have_sklearns_values_and_no_warnings() -> None:
    """One label that no row has, one that is never predicted, one that all have, and a row without any label."""
    known = np.array([[0, 1, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]], np.int8)
    logits = np.array([[1.0, -1, 2], [-2, -3, 1], [-1, -2, 3], [-1, -1, 0.5]])
    nothing = known * 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, of_nothing = compute(NAMES, logits, known), compute(NAMES, logits, nothing)
    for name in NAMES:
        assert found[name] == pytest.approx(REFERENCES[name](known.astype(float), logits))
    assert set(of_nothing.values()) == {0.0}
    assert compute(["subset_accuracy"], logits * 0 - 1, nothing) == {"subset_accuracy": 1.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_make_every_metric_nan(bad: float, caplog: pytest.LogCaptureFixture) -> None:
    metrics._warn_once.cache_clear()
    logits, known = _outputs(9, 3, seed=1)
    logits[2, 1] = logits[2, 2] = bad
    with caplog.at_level(logging.WARNING):
        assert all(math.isnan(value) for value in compute(NAMES, logits, known).values())
    assert "micro_f1 is undefined (null): 1 of 9 predictions are not finite numbers" in caplog.text


def test_rows_without_labels_and_other_kinds_are_refused() -> None:
    logits, known = _outputs(5, 3, seed=1)
    with pytest.raises(DataError, match="2 of 5 rows have no label"):
        compute(NAMES, logits, np.concatenate([known[:3], known[:2] * 0 - 1]))
    with pytest.raises(DataError, match="give one each a row"):
        compute(["accuracy"], logits, known)
    with pytest.raises(DataError, match="give one each a row"):
        compute(NAMES, logits[:, :2], known)
    with pytest.raises(ConfigError, match="'accuracy', which is for classification, but the task is multi-label"):
        check_metric_names(["accuracy", "macro_f1"], regression=False, multi_label=True)
    with pytest.raises(ConfigError, match="'micro_f1', which is for multi-label classification, but the task is class"):
        check_metric_names(["micro_f1"], regression=False)
