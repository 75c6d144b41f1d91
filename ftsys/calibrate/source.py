"""Gets the rows to calibrate with: from the run's predictions file where that is current, else by predicting."""

import numpy as np

from ftsys.calibrate.rows import Rows
from ftsys.calibrate.temperature import log_loss, log_scores
from ftsys.errors import ConfigError, DataError
from ftsys.metrics import compute
from ftsys.run_folder.finished import FinishedRun
from ftsys.run_folder.layout import predictions_file
from ftsys.run_folder.predictions import read_scores

SMALLEST_SCORE = 1e-300
"""A written score of 0 counts as this, so that its logarithm is finite."""


def calibration_rows(finished: FinishedRun, split: str) -> tuple[Rows, bool]:
    """Return logits and labels of a split, and True if they come from its predictions file.

    Raises ConfigError for a regression, DataError for rows without a label and for what cannot be predicted.
    """
    if finished.task.regression:
        raise ConfigError(f"task {finished.task.name!r} is a regression: it has no scores to calibrate.")
    found = _from_file(finished, split)
    rows = found or _predicted(finished, split)
    unlabelled = int((rows.labels < 0).reshape(len(rows), -1).any(axis=1).sum())
    if unlabelled:
        raise DataError(f"{unlabelled} of {len(rows)} rows of {split!r} have no label: name another with --split.")
    return rows, found is not None


def _from_file(finished: FinishedRun, split: str) -> Rows | None:
    """Read the predictions file; None unless it gives the metrics and the loss of results.json.

    The loss differs where the scores were calibrated before, and where the run smooths labels or weights classes.
    Logarithms of softmax scores are logits but for a constant of each row, which changes no score at any temperature.
    """
    path, task = predictions_file(finished.folder, split), finished.task
    if not path.is_file():
        return None
    predictions_N, labels_N, scores_NC = read_scores(path, task)
    known = finished.results["metrics"][split]
    if len(labels_N) != known.get("examples") or (labels_N < 0).any():
        return None
    if any(known.get(name) != value for name, value in compute(task.metrics, predictions_N, labels_N).items()):
        return None
    logits_NC = np.log(np.maximum(scores_NC, SMALLEST_SCORE))
    same = np.isclose(log_loss(log_scores(logits_NC), labels_N), known.get("loss") or np.nan, rtol=1e-4, atol=1e-4)
    return Rows(task.labels, logits_NC, labels_N) if same else None


def _predicted(finished: FinishedRun, split: str) -> Rows:
    from ftsys.calibrate.split_logits import split_logits

    logits_NC, labels_N = split_logits(finished, split)
    return Rows(finished.task.labels, logits_NC.astype(np.float64), np.asarray(labels_N).astype(np.int64))
