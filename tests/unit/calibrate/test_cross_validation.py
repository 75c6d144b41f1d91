"""Tests the folds, what is fitted to them, and each refusal of rows that nothing can be fitted to."""

import numpy as np
import pytest

from ftsys.calibrate.fit import _fold_of, fit
from ftsys.calibrate.rows import Rows, scores_of
from ftsys.calibrate.temperature import log_scores
from ftsys.errors import DataError

BINARY = ("no", "yes")
RANDOM = np.random.default_rng(7)


def binary(count: int = 300, too_large: float = 3.0) -> Rows:
    margin = RANDOM.normal(size=count) * 2
    labels = (RANDOM.random(count) < 1 / (1 + np.exp(-margin - 1))).astype(np.int64)
    return Rows(BINARY, np.stack([-margin, margin], axis=1) * too_large / 2, labels)


def several(count: int = 300) -> Rows:
    logits = RANDOM.normal(size=(count, 3)) * 2
    labels = (RANDOM.random((count, 3)) < 1 / (1 + np.exp(-logits + [0, 1, 30]))).astype(np.int64)
    return Rows(("a", "b", "never"), logits * 3, labels)


def test_folds_have_equal_parts_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 13, 4])
    folds = _fold_of(labels, 5, seed=1)
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert folds.tolist() == _fold_of(labels, 5, seed=1).tolist() != _fold_of(labels, 5, seed=2).tolist()


def test_too_large_logits_are_divided_and_the_error_falls_on_rows_held_out() -> None:
    found = fit(binary(1000), "f1", folds=5, seed=0)
    assert 2 < found.calibration.temperature < 4.5
    assert found.after.expected_calibration_error < found.before.expected_calibration_error
    assert found.after.log_loss < found.before.log_loss
    assert set(found.calibration.thresholds or {}) == {"yes"}
    assert found.calibration.metric == "f1"


def test_rows_held_out_do_not_choose_their_own_threshold() -> None:
    """Labels without any relation to the logits: thresholds gain on the rows they are fitted to, not on others."""
    rows = Rows(BINARY, RANDOM.normal(size=(60, 2)), RANDOM.permutation(np.repeat([0, 1], 30)))
    found = fit(rows, "accuracy", folds=6, seed=0)
    own = scores_of(rows.columns()["yes"].logits, found.calibration.temperature)
    fitted = ((own >= (found.calibration.thresholds or {})["yes"]) == rows.columns()["yes"].truth).mean()
    assert found.after.metric is not None
    assert found.after.metric < fitted


def test_several_labels_have_a_threshold_each_but_for_one_that_no_row_has() -> None:
    found = fit(several(), "f1", folds=5, seed=0)
    assert set(found.calibration.thresholds or {}) == {"a", "b"}
    assert found.left_out == ("never",)
    assert found.calibration.temperature > 2


def test_scores_of_a_column_are_those_of_the_softmax() -> None:
    rows = binary()
    column = rows.columns()["yes"]
    assert np.allclose(scores_of(column.logits, 1.7), np.exp(log_scores(rows.logits, 1.7))[:, 1], atol=1e-14)
    assert scores_of(np.array([-1e5, 1e5]), 0.05).tolist() == [0.0, 1.0]


def test_without_a_metric_there_are_no_thresholds() -> None:
    found = fit(binary(), None, folds=5, seed=0)
    assert (found.calibration.thresholds, found.calibration.metric, found.before.metric) == (None, None, None)


REFUSED = {
    "diverged": (Rows(BINARY, np.full((100, 2), np.nan), np.arange(100) % 2), None, "not finite"),
    "too few": (Rows(BINARY, np.zeros((49, 2)), np.arange(49) % 2), None, "49 rows are too few for 5 folds"),
    "one class": (Rows(BINARY, np.zeros((100, 2)), np.ones(100, np.int64)), None, "have the class 'yes'"),
    "no label": (Rows(("a", "b"), np.zeros((100, 2)), np.zeros((100, 2), np.int64)), None, "no label or every label"),
    "three classes": (Rows(("a", "b", "c"), np.zeros((99, 3)), np.arange(99) % 3), "f1", "the task has 3 classes"),
    "rare": (Rows(BINARY, np.zeros((100, 2)), np.arange(100) // 97), "mcc", "no label is on 5 rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_nothing_can_be_fitted_to_are_refused(name: str) -> None:
    rows, metric, reason = REFUSED[name]
    with pytest.raises(DataError, match=reason):
        fit(rows, metric, folds=5, seed=0)
