"""Tests that the metrics of many resamples at once are those of `ftsys.metrics`, resample by resample."""

import numpy as np
import pytest

from ftsys.metrics import METRICS, compute
from ftsys.table.results.resampled import resampled

ROWS, RESAMPLES = 40, 60
RNG = np.random.default_rng(11)


def inputs(name: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and predictions, with ties and with classes that some resamples lack."""
    if kind == "number":
        numbers_N = RNG.integers(0, 6, ROWS) / 2
        return numbers_N, np.round(numbers_N + RNG.normal(0, 1, ROWS), 1)
    if kind == "labels":
        labels_NC = (RNG.random((ROWS, 4)) < (0.5, 0.2, 0.05, 0.0)).astype(np.int64)
        scores_NC = np.round(np.clip(0.4 * labels_NC + RNG.random((ROWS, 4)) * 0.6, 0, 1), 1)
        return labels_NC, scores_NC if METRICS[name].of_logits else (scores_NC > 0.5).astype(np.int64)
    classes = 2 if METRICS[name].two_classes else 4
    labels_N = RNG.choice(classes, ROWS, p=(0.9, 0.1) if classes == 2 else (0.6, 0.3, 0.05, 0.05))
    return labels_N, np.where(RNG.random(ROWS) < 0.6, labels_N, RNG.integers(0, classes, ROWS))


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, metric in METRICS.items() for kind in metric.kinds])
def test_values_are_those_of_each_resample(name: str, kind: str) -> None:
    labels_N, predictions_N = inputs(name, kind)
    draws_RN = RNG.integers(0, ROWS, (RESAMPLES, ROWS))
    draws_RN[0] = 3  # one example alone: constant, and without most classes
    weights_RN = np.stack([np.bincount(draw_N, minlength=ROWS) for draw_N in draws_RN]).astype(np.float64)
    found = resampled(name)(labels_N, predictions_N, weights_RN)
    wanted = [compute((name,), predictions_N[draw_N], labels_N[draw_N])[name] for draw_N in draws_RN]
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_perfect_and_constant_predictions() -> None:
    labels_N, weights_1N = np.array([0, 1, 1, 0]), np.ones((1, 4))
    assert resampled("matthews_correlation")(labels_N, labels_N, weights_1N).tolist() == [1.0]
    assert resampled("matthews_correlation")(labels_N, np.ones(4), weights_1N).tolist() == [0.0]
    assert resampled("f1")(labels_N, np.zeros(4), weights_1N).tolist() == [0.0]
    assert np.isnan(resampled("spearmanr")(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), weights_1N)).all()
