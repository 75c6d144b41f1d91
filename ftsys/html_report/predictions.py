"""Reads predictions/SPLIT.tsv of a run as arrays. Shapes: N rows of a split, C classes."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ftsys.errors import DataError
from ftsys.files.untrusted import open_table
from ftsys.run_folder.layout import predictions_file
from ftsys.run_folder.predictions import label_rows
from ftsys.tasks import Task


@dataclass(frozen=True)
class SplitPredictions:
    """The labelled rows of a split: `ids` (N,) int64, `labels` and `predictions` (N,) class ids or numbers.

    Of several labels they are (N, C) of 1 and 0. `scores` is (N, C), and None for regression. `unlabelled` is the
    number of rows without a label, which are left out.
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.generic]
    predictions: npt.NDArray[np.generic]
    scores: npt.NDArray[np.float64] | None
    unlabelled: int = 0

    def decisions(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.generic]] | None:
        """Return scores (D, C) and labels (D,) of independent decisions; None for regression.

        Each label of an example with several labels is a decision between "no" and "yes". Those without a finite score,
        as of a diverged model, are left out.
        """
        if self.scores is None:
            return None
        scores_DC, labels_D = self.scores, self.labels.reshape(-1)
        if self.labels.ndim == 2:
            yes_D = self.scores.reshape(-1)
            scores_DC = np.stack([1.0 - yes_D, yes_D], axis=1)
        known_D = np.isfinite(scores_DC).all(axis=1)
        return scores_DC[known_D], labels_D[known_D]


def read_split_predictions(folder: Path, split: str, task: Task) -> SplitPredictions | None:
    """Read the labelled rows; None if there is no such file, or no label in it. Raises DataError."""
    path = predictions_file(folder, split)
    if not path.is_file():
        return None
    try:
        return _read(path, task)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path.name} cannot be read ({str(error)[:300]}): write it again with `ftsys predict`."
        ) from error


def _read(path: Path, task: Task) -> SplitPredictions | None:
    with open_table(path) as stream:
        rows = _cells(stream)
    wanted = ["index", "prediction", "label", *(f"score_{name}" for name in task.labels)]
    if not rows or rows[0] != wanted:
        raise ValueError(f"its columns are {rows[0] if rows else 'none'}, not {wanted}")
    if any(len(row) != len(wanted) for row in rows):
        raise ValueError(f"a line has not {len(wanted)} columns")
    labelled = [row for row in rows[1:] if row[2]]
    return _arrays(labelled, len(rows) - 1 - len(labelled), task) if labelled else None


def _cells(stream: Iterable[str]) -> list[list[str]]:
    try:
        return list(csv.reader(stream, delimiter="\t", strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _arrays(rows: Sequence[Sequence[str]], unlabelled: int, task: Task) -> SplitPredictions:
    ids = np.array([int(row[0]) for row in rows], np.int64)
    if task.regression:
        numbers = np.array([[float(row[1] or "nan"), float(row[2])] for row in rows], np.float64)
        return SplitPredictions(ids, numbers[:, 1], numbers[:, 0], None, unlabelled)
    scores = np.array([[float(cell) for cell in row[3:]] for row in rows], np.float64)
    if task.multi_label:
        predictions, labels = (label_rows([row[column] for row in rows], task) for column in (1, 2))
        return SplitPredictions(ids, labels, predictions, scores, unlabelled)
    known = {name: number for number, name in enumerate(task.labels)}
    unknown = next((cell for row in rows for cell in row[1:3] if cell not in known), None)
    if unknown is not None:
        raise ValueError(f"{unknown[:80]!r} is none of the classes {', '.join(task.labels[:20])}")
    classes = np.array([[known[row[1]], known[row[2]]] for row in rows], np.int64)
    return SplitPredictions(ids, classes[:, 1], classes[:, 0], scores, unlabelled)
