"""Fits a temperature, and measures how far a classifier's scores are from its accuracy. Everything is in float64.

Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: equations 3 (expected
calibration error) and 9 (temperature scaling). Shapes: N rows, C classes.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 15
"""Bins of equal width from 0 to 1, as in the paper."""
LEAST, MOST = 0.05, 20.0
"""Bounds of a temperature. The best temperature of rows that are all classified correctly is 0, which is no divisor."""


def log_scores(logits_NC: Floats, temperature: float = 1.0) -> Floats:
    """Return the logarithms of the scores (N, C): log softmax of the logits divided by the temperature."""
    scaled_NC = logits_NC / temperature
    scaled_NC = scaled_NC - scaled_NC.max(axis=1, keepdims=True)
    normalized_NC: Floats = scaled_NC - np.log(np.exp(scaled_NC).sum(axis=1, keepdims=True))
    return normalized_NC


def log_loss(log_scores_NC: Floats, labels_N: Ints) -> float:
    """Return the mean negative logarithm of the score of the right class."""
    return float(-np.take_along_axis(log_scores_NC, labels_N[:, None], axis=1).mean())


def fit_temperature(logits_NC: Floats, labels_N: Ints) -> float:
    """Return the temperature with the smallest log loss, from LEAST to MOST.

    The loss is convex in 1 / temperature, so its slope has one zero, which bisection finds wherever the fit starts.
    """
    from scipy.optimize import brentq

    right_N = np.take_along_axis(logits_NC, labels_N[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        mean_N = (np.exp(log_scores(logits_NC, 1 / inverse)) * logits_NC).sum(axis=1)
        return float((mean_N - right_N).mean())

    if slope(1 / MOST) >= 0:
        return MOST
    if slope(1 / LEAST) <= 0:
        return LEAST
    return float(1 / brentq(slope, 1 / MOST, 1 / LEAST, xtol=1e-12, rtol=1e-12))


def expected_calibration_error(log_scores_NC: Floats, labels_N: Ints, bins: int = BINS) -> float:
    """Return the mean of |accuracy - mean score| over bins of the predicted class's score, weighted by their rows.

    Bin m of M has the scores in ((m - 1) / M, m / M].
    """
    best_N = log_scores_NC.argmax(axis=1)
    confidence_N = np.exp(log_scores_NC.max(axis=1))
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus_N = (best_N == labels_N) - confidence_N
    return float(np.abs(np.bincount(bin_N, weights=surplus_N, minlength=bins)).sum() / len(labels_N))
