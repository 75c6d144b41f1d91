"""Compares temperature, calibration error and thresholds in float64 with slow references and with scikit-learn."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn import metrics as sk

from ftsys.calibrate.temperature import (
    LEAST,
    MOST,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    log_scores,
)
from ftsys.calibrate.thresholds import best_threshold, metric_value

REFERENCES = {
    "f1": lambda truth, predicted: sk.f1_score(truth, predicted, zero_division=0.0),
    "mcc": sk.matthews_corrcoef,
    "accuracy": sk.accuracy_score,
}


def rows(seed: int, classes: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are 2.5 times too large for their labels, and the labels."""
    random = np.random.default_rng(seed)
    right = random.normal(size=(count, classes))
    chances = np.exp(right) / np.exp(right).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(classes, p=chance) for chance in chances])
    return right * 2.5 + random.normal(size=(count, 1)) * 30, labels


@pytest.mark.parametrize("classes", [2, 5])
def test_temperature_is_the_minimum_that_another_optimizer_finds(classes: int) -> None:
    logits, labels = rows(3, classes)

    def loss(log_temperature: np.ndarray) -> float:
        scores = np.exp(log_scores(logits, float(np.exp(log_temperature[0]))))
        return float(sk.log_loss(labels, scores, labels=list(range(classes))))

    reference = minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14})
    assert fit_temperature(logits, labels) == pytest.approx(float(np.exp(reference.x[0])), rel=1e-5)
    assert log_loss(log_scores(logits), labels) == pytest.approx(loss(np.zeros(1)), rel=1e-12)


def test_temperature_stays_within_its_bounds() -> None:
    logits, _ = rows(4, 3)
    assert fit_temperature(logits, logits.argmax(axis=1)) == LEAST
    assert fit_temperature(logits, logits.argmin(axis=1)) == MOST


def test_scores_of_enormous_logits_are_finite() -> None:
    assert np.exp(log_scores(np.array([[1e4, -1e4], [0.0, 0.0]]))).tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("bins", [1, 15])
def test_calibration_error_is_the_papers_sum(bins: int) -> None:
    logits, labels = rows(5, 3, 200)
    logits[:2] = [[500.0, 0.0, 0.0], [0.0, 0.0, 0.0]]  # a score of exactly 1, and one of exactly 1/3
    scores = np.exp(log_scores(logits))
    total = 0.0
    for number in range(1, bins + 1):
        members = [row for row in range(200) if (number - 1) / bins < scores[row].max() <= number / bins]
        if members:
            accuracy = sum(scores[row].argmax() == labels[row] for row in members) / len(members)
            confidence = sum(scores[row].max() for row in members) / len(members)
            total += len(members) / 200 * abs(accuracy - confidence)
    assert expected_calibration_error(np.log(np.maximum(scores, 1e-300)), labels, bins) == pytest.approx(total)


@pytest.mark.parametrize("metric", REFERENCES)
@pytest.mark.parametrize("seed", range(2))
def test_threshold_is_as_good_as_any_and_nearest_to_a_half(metric: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.random(50) < 0.3
    scores = np.clip(random.normal(0.4 + 0.2 * truth, 0.2), 0, 1).round(1).astype(np.float64)  # with ties
    found = best_threshold(metric, scores, truth)
    edges = [0.0, *sorted(set(scores.tolist())), 1.0]
    tried = {(low + high) / 2: 0.0 for low, high in pairwise(edges) if low < 1}
    tried = {threshold: REFERENCES[metric](truth, scores >= threshold) for threshold in tried}
    best = max(tried.values())
    assert metric_value(metric, scores >= found, truth) == pytest.approx(best, abs=1e-12)
    assert tried[found] == pytest.approx(best, abs=1e-12)
    assert abs(found - 0.5) == min(abs(threshold - 0.5) for threshold, value in tried.items() if value > best - 1e-12)


@pytest.mark.parametrize("metric", REFERENCES)
def test_thresholds_of_one_kind_of_row(metric: str) -> None:
    scores = np.array([0.2, 0.9, 1.0])
    assert 0 < best_threshold(metric, scores, np.ones(3, bool)) <= 0.2 or metric == "mcc"
    assert 0 <= best_threshold(metric, scores, np.zeros(3, bool)) <= 1
