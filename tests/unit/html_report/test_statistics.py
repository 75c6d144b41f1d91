"""Tests the numbers of a report against slow references and scikit-learn's values."""

import numpy as np
import pytest

from ftsys.html_report.statistics import (
    average_precisions,
    confusion,
    label_counts,
    label_losses,
    losses,
    packing,
    per_class,
    per_label,
    reliability,
)


def test_confusion_matrix_counts_labels_by_row() -> None:
    assert confusion([0, 0, 1, 2, 2], [0, 1, 1, 2, 0], 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_scores_by_class_and_a_class_without_examples() -> None:
    scores = per_class([0] * 4 + [1] * 6, [0, 0, 0, 1, 0, 0, 1, 1, 1, 1], 3)
    assert scores.precision.tolist() == pytest.approx([3 / 5, 4 / 5, 0.0])
    assert scores.recall.tolist() == pytest.approx([3 / 4, 4 / 6, 0.0])
    assert scores.f1.tolist() == pytest.approx([6 / 9, 8 / 11, 0.0])
    assert scores.support.tolist() == [4, 6, 0]


def test_scores_of_many_classes_need_no_matrix() -> None:
    assert per_class([0, 999_999], [0, 5], 1_000_000).recall[[0, 5, 999_999]].tolist() == [1.0, 0.0, 0.0]


def _slow_ece(scores: np.ndarray, labels: np.ndarray, bins: int) -> float:
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = [n for n, row in enumerate(scores) if low < row.max() <= high]
        if inside:
            right = np.mean([scores[n].argmax() == labels[n] for n in inside])
            total += len(inside) / len(scores) * abs(right - np.mean([scores[n].max() for n in inside]))
    return float(total)


def test_calibration_error_against_a_slow_reference() -> None:
    random = np.random.default_rng(3)
    scores, labels = random.dirichlet(np.ones(3), 500), random.integers(0, 3, 500)
    found = reliability(scores, labels)
    assert found.ece == pytest.approx(_slow_ece(scores, labels, 15), abs=1e-12)
    assert found.count.sum() == 500


def test_a_probability_on_an_edge_belongs_to_the_lower_bin() -> None:
    found = reliability(np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]), [0, 1, 1], bins=10)
    assert found.count.tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 0, 1]
    assert found.accuracy[[4, 7, 9]].tolist() == [0.0, 1.0, 1.0]


def test_loss_of_an_impossible_class_is_finite() -> None:
    assert losses(np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([1, 1])).tolist() == pytest.approx(
        [-np.log(0.75), -np.log(1e-12)]
    )


def test_padding_to_the_longest_against_all_possible_batches() -> None:
    lengths = [3, 5, 5, 9]
    every = [max(a, b) for a in lengths for b in lengths]
    found = packing(np.bincount(lengths).tolist(), batch=2, maximum=16)
    assert found.padded_to_longest == pytest.approx(4 * np.mean(every))
    assert (found.examples, found.real, found.longest, found.padded_to_maximum) == (4, 22, 9, 64)


def test_padding_of_no_examples() -> None:
    assert packing([0, 0], batch=2, maximum=16).real == 0


def test_counts_and_scores_of_each_label_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, multilabel_confusion_matrix, precision_recall_fscore_support

    rng = np.random.default_rng(7)
    scores_NC = np.round(rng.random((200, 4)), 2)  # with ties
    labels_NC, predictions_NC = (rng.random((200, 4)) < 0.3).astype(np.int64), (scores_NC > 0.5).astype(np.int64)
    labels_NC[:, 3] = 0
    counts_C4 = label_counts(labels_NC, predictions_NC)
    theirs = multilabel_confusion_matrix(labels_NC, predictions_NC)
    assert counts_C4.tolist() == [[one[1, 1], one[1, 0], one[0, 1], one[0, 0]] for one in theirs]
    found = per_label(counts_C4)
    wanted = precision_recall_fscore_support(labels_NC, predictions_NC, average=None, zero_division=0.0)
    for mine, other in zip((found.precision, found.recall, found.f1, found.support), wanted, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-15)
    precisions = average_precisions(labels_NC, scores_NC)
    np.testing.assert_allclose(
        precisions[:3], average_precision_score(labels_NC[:, :3], scores_NC[:, :3], average=None)
    )
    assert np.isnan(precisions[3]), "no example has it"
    scores_NC[0, 0] = np.nan
    assert np.isnan(average_precisions(labels_NC, scores_NC)[0])


def test_the_loss_of_several_labels_is_their_mean_cross_entropy() -> None:
    scores_NC, labels_NC = np.array([[0.9, 0.2], [0.0, 0.5]]), np.array([[1, 0], [1, 0]])
    expected = [-(np.log(0.9) + np.log(0.8)) / 2, -(np.log(1e-12) + np.log(0.5)) / 2]
    assert label_losses(scores_NC, labels_NC).tolist() == pytest.approx(expected)
