"""Reads predictions/SPLIT.tsv of a run as arrays. Shapes: N rows of a split, C classes."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ftsys.run_folder.layout import predictions_file
from ftsys.tasks import Task


@dataclass(frozen=True)
class SplitPredictions:
    """The labelled rows of a split: `ids` (N,) int64, `labels` and `predictions` (N,) class ids or numbers.

    `scores` is (N, C), and None for regression. `unlabelled` is the number of rows without a label, which are left out.
    """

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.generic]
    predictions: npt.NDArray[np.generic]
    scores: npt.NDArray[np.float64] | None
    unlabelled: int = 0


def read_split_predictions(folder: Path, split: str, task: Task) -> SplitPredictions | None:
    """Read the labelled rows; None if there is no such file, or no label in it. Raises ValueError and OSError."""
    path = predictions_file(folder, split)
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        rows = _cells(stream)
    wanted = ["index", "prediction", "label", *(f"score_{name}" for name in task.labels)]
    if not rows or rows[0] != wanted:
        raise ValueError(f"{path.name}: its columns are {rows[0] if rows else 'none'}, not {wanted}")
    if any(len(row) != len(wanted) for row in rows):
        raise ValueError(f"{path.name}: a line has not {len(wanted)} columns")
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
        numbers = np.array([[float(row[1]), float(row[2])] for row in rows], np.float64)
        return SplitPredictions(ids, numbers[:, 1], numbers[:, 0], None, unlabelled)
    known = {name: number for number, name in enumerate(task.labels)}
    unknown = next((cell for row in rows for cell in row[1:3] if cell not in known), None)
    if unknown is not None:
        raise ValueError(f"{unknown[:80]!r} is none of the classes {', '.join(task.labels[:20])}")
    classes = np.array([[known[row[1]], known[row[2]]] for row in rows], np.int64)
    scores = np.array([[float(cell) for cell in row[3:]] for row in rows], np.float64)
    return SplitPredictions(ids, classes[:, 1], classes[:, 0], scores, unlabelled)
