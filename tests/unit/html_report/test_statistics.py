"""Tests the numbers of a report against slow references and scikit-learn's values."""

import numpy as np
import pytest

from ftsys.html_report.statistics import confusion, losses, packing, per_class, reliability


def test_confusion_matrix_counts_labels_by_row() -> None:
    assert confusion([0, 0, 1, 2, 2], [0, 1, 1, 2, 0], 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_scores_by_class_and_a_class_without_examples() -> None:
    scores = per_class(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    assert scores.precision.tolist() == pytest.approx([3 / 5, 4 / 5, 0.0])
    assert scores.recall.tolist() == pytest.approx([3 / 4, 4 / 6, 0.0])
    assert scores.f1.tolist() == pytest.approx([6 / 9, 8 / 11, 0.0])
    assert scores.support.tolist() == [4, 6, 0]


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
    assert found.ece == pytest.approx(_slow_ece(scores, labels, 10), abs=1e-12)
    assert found.count.sum() == 500


def test_a_probability_on_an_edge_belongs_to_the_lower_bin() -> None:
    found = reliability(np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]), [0, 1, 1])
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
