"""Fits a calibration to rows, and measures it on rows that it was not fitted to, by cross-validation."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ftsys.calibrate.rows import Bools, Rows, scores_of
from ftsys.calibrate.temperature import Ints, expected_calibration_error, fit_temperature, log_loss, log_scores
from ftsys.calibrate.thresholds import best_threshold, metric_value
from ftsys.errors import DataError
from ftsys.model_files.calibration import Calibration

ROWS_A_FOLD = 10
"""The fewest rows of a fold: below it, one row changes a fold's figures by more than a tenth."""
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Figures:
    """Figures of the rows: mean log loss, expected calibration error, and the metric (its mean over several labels)."""

    log_loss: float
    expected_calibration_error: float
    metric: float | None


@dataclass(frozen=True)
class Fitted:
    """A calibration of all rows. `before` is without it; `after` is of each row by a fit to the other folds.

    `left_out` are labels without a threshold, because too few rows have them, or too few have not.
    """

    calibration: Calibration
    before: Figures
    after: Figures
    left_out: tuple[str, ...]


def fit(rows: Rows, metric: str | None, folds: int, seed: int) -> Fitted:
    """Fit a temperature and, for a `metric` of METRICS, thresholds; cross-validate both.

    Raises DataError for too few rows, for rows of one class only, for logits that are not finite, and for a metric
    where no label can have a threshold.
    """
    check_rows(rows, folds)
    names, left_out = threshold_names(rows, metric, folds)
    before = _figures(rows, metric, {name: column.logits > 0 for name, column in rows.columns().items()})
    after = _out_of_fold(rows, metric, names, _fold_of(rows.groups, folds, seed), folds)
    return Fitted(_fit(rows, metric, names), before, after, left_out)


def check_rows(rows: Rows, folds: int) -> None:
    """Raise DataError for rows that no calibration can be fitted to."""
    if not np.isfinite(rows.logits).all():
        raise DataError("some logits are not finite numbers: the training diverged, and no calibration mends that.")
    if len(rows) < folds * ROWS_A_FOLD:
        raise DataError(
            f"{len(rows)} rows are too few for {folds} folds of {ROWS_A_FOLD} rows or more: "
            "name a larger split with --split, or fewer folds with --folds."
        )
    labels = np.unique(rows.labels)
    if len(labels) < 2:
        one = "no label or every label" if rows.multi_label else f"the class {rows.names[labels[0]]!r}"
        raise DataError(f"all {len(rows)} rows have {one}: a calibration needs rows of two classes.")


def threshold_names(rows: Rows, metric: str | None, folds: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels to choose thresholds for, and those left out. Raises DataError if a metric finds none."""
    if metric is None:
        return (), ()
    columns = rows.columns()
    if not columns:
        raise DataError(
            f"--metric {metric}: thresholds are for two classes or for several labels a row, and the task has "
            f"{len(rows.names)} classes. Leave out --metric to fit the temperature alone."
        )
    least = {name: min(column.truth.sum(), (~column.truth).sum()) for name, column in columns.items()}
    names = tuple(name for name in columns if least[name] >= folds)
    if not names:
        raise DataError(
            f"--metric {metric}: no label is on {folds} rows and missing on {folds} rows, one for each fold: "
            "name a larger split with --split, or fewer folds with --folds."
        )
    return names, tuple(name for name in columns if name not in names)


def _fold_of(groups_N: Ints, folds: int, seed: int) -> Ints:
    """Return the fold of each row (N,): a random one, with equal numbers of rows of each group up to one."""
    order_N = np.random.default_rng(seed).permutation(len(groups_N))
    order_N = order_N[np.argsort(groups_N[order_N], kind="stable")]
    fold_N = np.empty(len(groups_N), np.int64)
    fold_N[order_N] = np.arange(len(groups_N)) % folds
    return fold_N


def _fit(rows: Rows, metric: str | None, names: tuple[str, ...]) -> Calibration:
    temperature = fit_temperature(*rows.decisions())
    if metric is None:
        return Calibration(temperature)
    columns = rows.columns()
    scores = {name: scores_of(columns[name].logits, temperature) for name in names}
    thresholds = {name: best_threshold(metric, scores[name], columns[name].truth) for name in names}
    return Calibration(temperature, thresholds, metric)


def _out_of_fold(rows: Rows, metric: str | None, names: tuple[str, ...], fold_N: Ints, folds: int) -> Figures:
    logits_NC = np.empty_like(rows.logits)
    predicted = {name: np.empty(len(rows), np.bool_) for name in rows.columns()}
    for fold in range(folds):
        held_N = fold_N == fold
        found, held = _fit(rows.take(~held_N), metric, names), rows.take(held_N)
        logits_NC[held_N] = held.logits / found.temperature
        for name, column in held.columns().items():
            threshold = (found.thresholds or {}).get(name, DEFAULT_THRESHOLD)
            predicted[name][held_N] = scores_of(column.logits, found.temperature) >= threshold
    return _figures(Rows(rows.names, logits_NC, rows.labels), metric, predicted)


def _figures(rows: Rows, metric: str | None, predicted: Mapping[str, Bools]) -> Figures:
    logits_DC, labels_D = rows.decisions()
    scores_DC = log_scores(logits_DC)
    columns = rows.columns()
    values = [metric_value(metric, predicted[name], columns[name].truth) for name in columns] if metric else []
    mean = sum(values) / len(values) if values else None
    return Figures(log_loss(scores_DC, labels_D), expected_calibration_error(scores_DC, labels_D), mean)
