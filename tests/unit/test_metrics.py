"""Tests metrics against formulas in float64 NumPy, which share no code with scikit-learn or scipy."""

import logging
import math
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from ftsys import metrics
from ftsys.errors import ConfigError, DataError
from ftsys.metrics import METRICS, check_metric_names, compute, metrics_of_logits, predictions_from_logits
from ftsys.tasks import GLUE, PARAPHRASE, Task

Array = npt.NDArray[np.float64]


def _counts(labels: Array, predictions: Array, name: float) -> tuple[float, float, float]:
    """True positives, false positives and false negatives of one class."""
    right = float(((labels == name) & (predictions == name)).sum())
    return right, float((predictions == name).sum()) - right, float((labels == name).sum()) - right


def _f1(labels: Array, predictions: Array, name: float = 1) -> float:
    right, extra, missed = _counts(labels, predictions, name)
    return 2 * right / (2 * right + extra + missed) if right + extra + missed else 0.0


def _macro_f1(labels: Array, predictions: Array) -> float:
    names = np.unique(np.concatenate([labels, predictions]))
    return float(np.mean([_f1(labels, predictions, name) for name in names]))


def _precision(labels: Array, predictions: Array) -> float:
    right, extra, _ = _counts(labels, predictions, 1)
    return right / (right + extra) if right + extra else 0.0


def _recall(labels: Array, predictions: Array) -> float:
    right, _, missed = _counts(labels, predictions, 1)
    return right / (right + missed) if right + missed else 0.0


def _matthews(labels: Array, predictions: Array) -> float:
    """Gorodkin's R_K from the confusion matrix."""
    size = int(max(labels.max(), predictions.max())) + 1
    table = np.zeros((size, size))
    np.add.at(table, (labels.astype(int), predictions.astype(int)), 1.0)
    total, right = table.sum(), np.trace(table)
    true, said = table.sum(axis=1), table.sum(axis=0)
    below = math.sqrt(total**2 - said @ said) * math.sqrt(total**2 - true @ true)
    return float((right * total - said @ true) / below) if below else 0.0


def _pearson(labels: Array, predictions: Array) -> float:
    x, y = labels - labels.mean(), predictions - predictions.mean()
    return float((x @ y) / math.sqrt((x @ x) * (y @ y)))


def _ranks(values: Array) -> Array:
    """Average ranks from 1, ties sharing theirs."""
    below = (values[None, :] < values[:, None]).sum(axis=1)
    return below + ((values[None, :] == values[:, None]).sum(axis=1) + 1) / 2


def _kendall(labels: Array, predictions: Array) -> float:
    """Tau-b: agreeing minus disagreeing pairs, over the pairs that no side ties."""
    x = np.sign(labels[:, None] - labels[None, :])
    y = np.sign(predictions[:, None] - predictions[None, :])
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


ONE_LABEL = [name for name, metric in METRICS.items() if metric.kinds != ("labels",)]
"""Metrics of tasks whose examples have one class or one number; test_multi_label_metrics.py has the others."""

REFERENCES: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": lambda labels, predictions: float((labels == predictions).mean()),
    "f1": _f1,
    "precision": _precision,
    "recall": _recall,
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews,
    "pearson": _pearson,
    "spearmanr": lambda labels, predictions: _pearson(_ranks(labels), _ranks(predictions)),
    "kendalltau": _kendall,
    "mse": lambda labels, predictions: float(((labels - predictions) ** 2).mean()),
    "rmse": lambda labels, predictions: math.sqrt(((labels - predictions) ** 2).mean()),
    "mae": lambda labels, predictions: float(np.abs(labels - predictions).mean()),
    "r2": lambda labels, predictions: float(
        1 - ((labels - predictions) ** 2).sum() / ((labels - labels.mean()) ** 2).sum()
    ),
}


def _outputs(task: Task, seed: int, rows: int = 277) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.generic]]:
    """Logits that know something of the labels, and the labels, with many ties where the task has numbers."""
    generator = np.random.default_rng(seed)
    if task.regression:
        labels = np.round(generator.uniform(0, 5, rows) * 4) / 4
        return (labels + generator.normal(0, 1, rows))[:, None].round(2).astype(np.float32), labels
    classes = generator.integers(0, len(task.labels), rows)
    logits = generator.normal(0, 1, (rows, len(task.labels))) + 1.5 * np.eye(len(task.labels))[classes]
    return logits.astype(np.float32), classes


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("task", [*GLUE.values(), PARAPHRASE], ids=lambda task: task.name)
def test_every_task_is_judged_as_the_formulas_say(task: Task, seed: int) -> None:
    logits, labels = _outputs(task, seed)
    predictions = predictions_from_logits(logits, task.regression)
    found = compute(task.metrics, predictions, labels)
    assert tuple(found) == task.metrics
    for name, value in found.items():
        expected = REFERENCES[name](labels.astype(np.float64), predictions.astype(np.float64))
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert 0.3 < value < 1.0, "a reference that both sides get wrong in the same way would hide at 0 or 1"


@pytest.mark.parametrize("name", ONE_LABEL)
def test_every_metric_has_a_reference_and_agrees_with_it(name: str) -> None:
    task = GLUE["stsb"] if METRICS[name].regression else GLUE["mrpc"] if METRICS[name].two_classes else GLUE["mnli"]
    logits, labels = _outputs(task, seed=7)
    predictions = predictions_from_logits(logits, task.regression)
    expected = REFERENCES[name](labels.astype(np.float64), predictions.astype(np.float64))
    assert compute([name], predictions, labels)[name] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_known_values_by_hand() -> None:
    labels, predictions = [1, 1, 1, 0, 0, 1], [1, 1, 0, 0, 1, 1]
    found = compute(["accuracy", "f1", "matthews_correlation"], predictions, labels)
    # tp 3, fp 1, fn 1, tn 1
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["f1"] == pytest.approx(6 / 8)
    assert found["matthews_correlation"] == pytest.approx((3 * 1 - 1 * 1) / math.sqrt(4 * 4 * 2 * 2))


def test_direction_of_each_metric() -> None:
    labels, good, bad = np.array([0.0, 1, 2, 3]), np.array([0.1, 1.1, 2.1, 3.2]), np.array([3.0, 1, 2.5, 0])
    for name, metric in METRICS.items():
        if metric.regression:
            better, worse = (compute([name], predictions, labels)[name] for predictions in (good, bad))
            assert (better > worse) == metric.greater_is_better, name
    assert all(metric.greater_is_better for metric in METRICS.values() if not metric.regression)


@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("side", ["labels", "predictions", "both"])
def test_constant_classes_give_sklearns_values_without_warnings(side: str, constant: int) -> None:
    varied, same = np.array([0, 1, 0, 1, 1]), np.full(5, constant)
    labels = varied if side == "predictions" else same
    predictions = varied if side == "labels" else same
    names = [name for name in ONE_LABEL if not METRICS[name].regression]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute(names, predictions, labels)
    assert found["matthews_correlation"] == 0.0
    for name in names:
        assert found[name] == pytest.approx(REFERENCES[name](labels.astype(float), predictions.astype(float)))


@pytest.mark.parametrize("side", ["labels", "predictions"])
def test_undefined_correlation_is_nan_and_said_once(side: str, caplog: pytest.LogCaptureFixture) -> None:
    metrics._warn_once.cache_clear()
    varied, same = np.array([0.5, 1.0, 2.5]), np.full(3, 2.0)
    labels, predictions = (same, varied) if side == "labels" else (varied, same)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        for _ in range(3):
            found = compute(["pearson", "spearmanr"], predictions, labels)
    assert all(math.isnan(value) for value in found.values())
    assert [record.getMessage() for record in caplog.records] == [
        f"pearsonr is undefined (null): all {side} are equal",
        f"spearmanr is undefined (null): all {side} are equal",
    ]


def test_predictions_of_a_diverged_model_are_nan_and_said(caplog: pytest.LogCaptureFixture) -> None:
    metrics._warn_once.cache_clear()
    found = compute(["pearson", "mse"], np.array([1.0, np.nan, np.inf]), np.array([1.0, 2.0, 3.0]))
    assert all(math.isnan(value) for value in found.values())
    assert "2 of 3 predictions are not finite" in caplog.text


def test_nearly_constant_predictions_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute(["pearson"], 1.0 + np.array([0.0, 1e-15, 2e-15, 0.0]), np.array([1.0, 2.0, 3.0, 4.0]))


def test_correlation_is_computed_in_float64() -> None:
    labels = np.linspace(0, 5, 1000, dtype=np.float32)
    predictions = (labels * 1e-2 + 4096).astype(np.float32)
    found = compute(["pearson", "mse"], predictions, labels)
    for name, value in found.items():
        assert value == pytest.approx(REFERENCES[name](labels.astype(float), predictions.astype(float)), rel=1e-12)


def test_predictions_from_logits() -> None:
    logits = np.array([[0.1, 0.2, -1], [3, 3, 1], [-2, -1, 0]], dtype=np.float32)
    classes = predictions_from_logits(logits, regression=False)
    assert classes.dtype == np.int64
    assert classes.tolist() == [1, 0, 2], "the first of equal logits wins, as with argmax everywhere"
    scores = predictions_from_logits(np.array([[4.5], [-0.25]], dtype=np.float32), regression=True)
    assert scores.dtype == np.float64
    assert scores.tolist() == [4.5, -0.25], "not clipped: GLUE judges STS-B by correlation"


@pytest.mark.parametrize(("shape", "regression"), [((3,), False), ((3,), True), ((3, 2), True), ((3, 1, 2), False)])
def test_logits_of_a_wrong_shape(shape: tuple[int, ...], regression: bool) -> None:
    with pytest.raises(ValueError, match=r"logits have shape"):
        predictions_from_logits(np.zeros(shape), regression)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([], [], "no rows"),
        ([1, 0], [1, 0, 1], r"\(2,\) predictions .* \(3,\) labels"),
        ([[1], [0]], [[1], [0]], r"one each a row"),
        ([1, 0, 1], [1, -1, -1], "2 of 3 rows have no label"),
        ([1.0, 0.5], [1.0, float("nan")], "1 of 2 rows have no label"),
    ],
)
def test_rows_that_cannot_be_judged(predictions: list[float], labels: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compute(["accuracy"], predictions, labels)


def test_names_that_are_wrong_are_reported_together() -> None:
    with pytest.raises(ConfigError) as found:
        check_metric_names(["acuracy", "f1", "pearson", "zzz"], regression=False, num_labels=3)
    messages = found.value.messages
    assert len(messages) == 4
    assert "'acuracy'" in messages[0]
    assert "Did you mean 'accuracy'?" in messages[0]
    assert "'f1', which is for two classes, but the task has 3" in messages[1]
    assert "'pearson', which is for regression, but the task is classification" in messages[2]
    assert "'zzz', which is not a metric. Known for classification: accuracy, f1" in messages[3]


def test_the_nearest_name_may_be_of_the_other_kind() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'matthews_correlation'\?"):
        check_metric_names(["mathews_corelation"], regression=True)


@pytest.mark.parametrize("task", [*GLUE.values(), PARAPHRASE], ids=lambda task: task.name)
def test_every_shipped_task_names_fitting_metrics(task: Task) -> None:
    assert task.metrics
    check_metric_names(task.metrics, task.regression, len(task.labels) or None)


def test_compute_refuses_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'spearmanr'\?"):
        compute(["spearman"], [1.0, 2.0], [1.0, 2.0])


def test_classes_by_logits_of_nan_are_no_answers(caplog: pytest.LogCaptureFixture) -> None:
    """The largest of them is the first by position, which may well be the most frequent class."""
    logits = np.array([[2.0, 1.0], [np.nan, np.nan], [0.0, 1.0]], np.float32)
    found = metrics_of_logits(GLUE["mrpc"], logits, [0, 0, 1])
    assert list(found) == ["accuracy", "f1"]
    assert all(math.isnan(value) for value in found.values())
    assert "accuracy, f1: undefined (null), because 1 of 3 rows have logits of NaN" in caplog.text
    assert metrics_of_logits(GLUE["mrpc"], np.nan_to_num(logits), [0, 0, 1])["accuracy"] == 1.0
