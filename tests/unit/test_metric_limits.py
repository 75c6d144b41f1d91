"""Tests metrics at their limits: few rows, class 1 against the rest, kinds of labels, and what is asked for."""

import logging
import math

import numpy as np
import pytest

from ftsys import metrics
from ftsys.errors import ConfigError, DataError
from ftsys.metrics import METRICS, check_metric_names, compute, predictions_from_logits


def test_class_one_is_judged_against_the_rest() -> None:
    labels, predictions = [1, 1, 1, 0, 2, 2], [1, 0, 2, 1, 1, 2]
    found = compute(["precision", "recall", "f1"], predictions, labels)
    # Of three predicted as 1 one is right; of three that are 1 one is found.
    assert found == {"precision": 1 / 3, "recall": 1 / 3, "f1": pytest.approx(1 / 3)}
    found = compute(["precision", "recall"], [1, 1, 1, 1, 0], [1, 0, 0, 0, 1])
    assert found == {"precision": 1 / 4, "recall": 1 / 2}


@pytest.mark.parametrize("rows", [1, 2])
def test_r2_needs_two_rows(rows: int, caplog: pytest.LogCaptureFixture) -> None:
    metrics._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        found = compute(["r2", "mse"], [1.0, 2.5][:rows], [1.0, 2.0][:rows])
    assert math.isnan(found["r2"]) == (rows < 2)
    assert math.isfinite(found["mse"])
    assert ("r2 is undefined (null): it needs two rows or more" in caplog.text) == (rows < 2)


def test_the_kinds_of_metrics() -> None:
    of_classes = [name for name, metric in METRICS.items() if metric.two_classes]
    assert of_classes == ["f1", "precision", "recall"]
    assert [name for name, metric in METRICS.items() if metric.of_logits] == ["average_precision"]
    assert [name for name, metric in METRICS.items() if not metric.greater_is_better] == ["mse", "rmse", "mae"]


@pytest.mark.parametrize("classes", [2, None])
def test_metrics_of_two_classes_fit_two_classes_and_an_unknown_number(classes: int | None) -> None:
    check_metric_names(["f1", "accuracy"], False, classes)


def test_kinds_of_tasks_have_their_names_in_messages() -> None:
    with pytest.raises(ConfigError, match=r"Known for regression: pearson, .*, r2\."):
        check_metric_names(["zzz"], regression=True)
    with pytest.raises(ConfigError, match=r"'f1', which is for classification, but the task is regression"):
        check_metric_names(["f1"], regression=True)
    with pytest.raises(ConfigError, match=r"Known for multi-label classification: macro_f1, micro_f1"):
        check_metric_names(["zzz"], regression=False, multi_label=True)


def test_no_names_are_no_metrics_of_any_rows() -> None:
    assert compute([], [1, 0], [1, 0]) == {}
    with pytest.raises(DataError, match="give one each a row"):
        compute([], [[1, 0]], [[1, 0]])


def test_a_metric_of_one_kind_among_others_takes_one_each_a_row() -> None:
    with pytest.raises(DataError, match="give one each a row"):
        compute(["macro_f1", "accuracy"], np.ones((2, 2)), np.ones((2, 2), np.int8))


def test_class_zero_and_the_number_zero_are_labels() -> None:
    assert compute(["accuracy"], [0, 0], [0, 0]) == {"accuracy": 1.0}
    assert compute(["mse"], [0.0, -1.0], [0.0, -1.0]) == {"mse": 0.0}
    assert compute(["macro_f1"], [[-1.0, 1.0], [-1.0, 1.0]], np.array([[0, 1], [0, 1]], np.int8)) == {"macro_f1": 0.5}


def test_a_logit_of_zero_predicts_no_label() -> None:
    known = np.array([[0, 1], [1, 0]], np.int8)
    assert compute(["subset_accuracy"], [[0.0, 0.5], [0.5, 0.0]], known) == {"subset_accuracy": 1.0}
    assert compute(["subset_accuracy"], [[1.0, 0.5], [0.5, 0.0]], known) == {"subset_accuracy": 0.5}


def test_logits_of_several_labels_stay_logits_in_float64() -> None:
    found = predictions_from_logits(np.array([[0.5, -1.0]], np.float32), False, multi_label=True)
    assert (found.dtype, found.tolist()) == (np.float64, [[0.5, -1.0]])
