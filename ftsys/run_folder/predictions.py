"""Writes and reads the predictions of a split, and writes the files that the GLUE server accepts.

Shapes: N rows of a split, C classes.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftsys.errors import DamagedError, DataError
from ftsys.files.atomic import atomic_open
from ftsys.files.csv_lines import write_csv
from ftsys.files.untrusted import open_table, parse_json
from ftsys.run_folder.layout import SUBMISSION
from ftsys.tasks import GLUE, Task

SUBMISSIONS: Mapping[tuple[str, str], str] = {
    ("cola", "test"): "CoLA.tsv",
    ("sst2", "test"): "SST-2.tsv",
    ("mrpc", "test"): "MRPC.tsv",
    ("stsb", "test"): "STS-B.tsv",
    ("qqp", "test"): "QQP.tsv",
    ("mnli", "test_matched"): "MNLI-m.tsv",
    ("mnli", "test_mismatched"): "MNLI-mm.tsv",
    ("qnli", "test"): "QNLI.tsv",
    ("rte", "test"): "RTE.tsv",
    ("wnli", "test"): "WNLI.tsv",
    ("ax", "test"): "AX.tsv",
}
"""File names that the GLUE server expects, by task and split."""

_NAMED_LABELS = ("mnli", "qnli", "rte", "ax")
"""Tasks whose submissions hold label names; the others hold numbers."""


def scores_from_logits(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Compute probabilities (N, C) float64 from logits (N, C), as transformers' text-classification pipeline does."""
    logits_NC = np.asarray(logits, dtype=np.float64)
    weights_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    scores_NC: npt.NDArray[np.float64] = weights_NC / weights_NC.sum(axis=1, keepdims=True)
    return scores_NC


def scores_of(logits: npt.ArrayLike, task: Task) -> npt.NDArray[np.float64] | None:
    """Compute the score of each class (N, C) float64: softmax of one class a row, sigmoid of several labels, or None.

    None is for regression, whose prediction is its score.
    """
    if task.multi_label:
        scores_NC: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))
        return scores_NC
    return None if task.regression else scores_from_logits(logits)


def write_predictions(
    path: Path | str,
    indexes: npt.ArrayLike,
    predictions: npt.ArrayLike,
    labels: npt.ArrayLike | None,
    scores: npt.ArrayLike | None,
    task: Task,
) -> None:
    """Write a TSV file with index, prediction, label and a score for each class, in the order of the data set.

    `indexes` is int64 (N,), in any order, each index once. `predictions` is (N,): class ids, or numbers for regression.
    `labels` has the same form; an unknown label is -1 or NaN (or `labels` is None) and leaves its cell empty. `scores`
    is (N, C), None for regression. Classes are written by name. For a multi-label task `predictions` are logits (N, C),
    of which those above 0 count, and `labels` are (N, C) of 1 and 0; a cell has the names between semicolons, or "[]"
    for none. Raises ValueError for an index that comes twice or for
    lengths that differ, and StorageError.
    """
    rows = _ordered(indexes)
    columns = [np.asarray(indexes)[rows].tolist(), _cells(predictions, rows, task)]
    columns.append([""] * len(rows) if labels is None else _cells(labels, rows, task))
    names: Sequence[str] = task.labels if scores is not None else ()
    if scores is not None:
        columns += [[f"{score:.6g}" for score in column[rows].tolist()] for column in np.asarray(scores).T]
    header = ["index", "prediction", "label", *(f"score_{name}" for name in names)]
    if len(columns) != len(header):
        raise ValueError(f"{len(columns) - 3} scores a row for the {len(names)} classes of {task.name!r}")
    _write_tsv(path, header, columns)


def read_predictions(path: Path) -> list[tuple[str, str]]:
    """Read (index, prediction) of each row, as text, of `write_predictions`. Passes on OSError and ValueError."""
    with open_table(path) as stream:
        return [(row["index"], row["prediction"]) for row in csv.DictReader(stream, delimiter="\t")]


def read_scores(path: Path, task: Task) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Read class ids of predictions (N,) and labels (N,), -1 where unknown, and scores (N, C) of `write_predictions`.

    Scores have six significant digits. Raises DataError for a file that cannot be read or is of another task.
    """
    try:
        with open_table(path) as stream:
            header, *rows = csv.reader(stream, delimiter="\t")
        if header != ["index", "prediction", "label", *(f"score_{name}" for name in task.labels)]:
            raise ValueError(f"its columns are {', '.join(map(repr, header))[:200]}")
        ids = {name: at for at, name in enumerate(task.labels)}
        classes = [[ids[row[1]], ids[row[2]] if row[2] else -1] for row in rows]
        scores = np.array([row[3:] for row in rows], np.float64).reshape(len(rows), len(task.labels))
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        raise DataError(f"{path}: cannot be used ({error!s:.200}). Write it again with `ftsys predict`.") from error
    predictions_N, labels_N = np.array(classes, np.int64).reshape(-1, 2).T
    return predictions_N, labels_N, scores


_COLUMNS = ("index", "prediction", "label")


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions and labels of a split, both (N,) in the order of `ids`, int64 (N,): class ids, or float64 numbers.

    Of several labels both are (N, C) int64 of 1 and 0, and `scores` is (N, C) float64; it is None for other tasks.
    `labels` is None where the split has none.
    """

    ids: npt.NDArray[np.int64]
    predictions: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None
    scores: npt.NDArray[np.float64] | None = None

    def ordered(self) -> "LabelledPredictions":
        """Return the rows in the ascending order of their ids."""
        order_N = np.argsort(self.ids, kind="stable")
        labels, scores = (None if side is None else side[order_N] for side in (self.labels, self.scores))
        return LabelledPredictions(self.ids[order_N], self.predictions[order_N], labels, scores)

    def judged(self, by_rank: bool) -> npt.NDArray[Any]:
        """Return what a metric takes: the scores of several labels where it ranks examples, else the predictions."""
        return self.scores if self.scores is not None and by_rank else self.predictions


def read_labelled(path: Path, task: Task) -> LabelledPredictions:
    """Read a file of `write_predictions`. Raises DamagedError for a missing file, and for one that is damaged."""
    try:
        rows = _whole_rows(path, task)
        columns = {name: [row[name] for row in rows] for name in _COLUMNS}
        labelled = bool(rows) and all(columns["label"])
        labels = _values(columns["label"], task) if labelled else None
        scores = _scores(rows, task) if task.multi_label else None
        ids = np.array(columns["index"], np.int64)
        return LabelledPredictions(ids, _values(columns["prediction"], task), labels, scores)
    except FileNotFoundError:
        raise DamagedError(f"{str(path)!r} is not there, though its run is finished: start the run anew.") from None
    except (ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        raise DamagedError(f"{str(path)!r} is damaged ({error}): `ftsys predict` writes it again.") from error


def _whole_rows(path: Path, task: Task) -> list[dict[str, str]]:
    """Return the rows of a file of predictions by column. Raises ValueError for a header or a row that is cut off."""
    with open_table(path) as stream:
        reader = csv.DictReader(stream, delimiter="\t", strict=True)
        rows = list(reader)
        names = list(reader.fieldnames or ())
    if names != [*_COLUMNS, *(f"score_{name}" for name in task.labels)]:
        raise ValueError(f"its header is {' '.join(names)[:80]!r}")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has not {len(names)} cells")
    return rows


def _values(cells: Sequence[str], task: Task) -> npt.NDArray[Any]:
    """Return numbers for a regression, NaN for an empty cell, else the classes' ids. Raises KeyError for a name that
    is no class."""
    if task.regression:
        return np.array([cell or "nan" for cell in cells], np.float64)
    if task.multi_label:
        return label_rows(cells, task)
    ids = {name: number for number, name in enumerate(task.labels)}
    return np.array([ids[cell] for cell in cells], np.int64)


def label_rows(cells: Sequence[str], task: Task) -> npt.NDArray[np.int64]:
    """Return 1 and 0 (N, C) for the labels in each cell of `label_cell`. Raises KeyError for a name that is no label,
    and ValueError for a cell that is no list of names."""
    ids = {name: number for number, name in enumerate(task.labels)}
    rows_NC = np.zeros((len(cells), len(ids)), np.int64)
    for row, cell in enumerate(cells):
        rows_NC[row, [ids[name] for name in _names(cell, task.labels)]] = 1
    return rows_NC


def _names(cell: str, labels: Sequence[str]) -> list[str]:
    """Return the names in a cell of `label_cell`. Raises ValueError for another text."""
    if cell == "[]":
        return []
    if not _separated(labels):
        return cell.split(";")
    names = parse_json(cell)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{cell[:80]!r} is no list of labels")
    return names


def _scores(rows: Sequence[Mapping[str, str]], task: Task) -> npt.NDArray[np.float64]:
    scores = [[row[f"score_{name}"] for name in task.labels] for row in rows]
    return np.array(scores, np.float64).reshape(len(rows), len(task.labels))


def write_submission(
    output_dir: Path | str, task: Task, split: str, indexes: npt.ArrayLike, predictions: npt.ArrayLike
) -> Path | None:
    """Write submission/TASK.tsv in the GLUE server's format; returns its path, or None if the server has no such file.

    The server's labels are GLUE's, in GLUE's order; a task with other labels of its own has no file either.

    `indexes` must be 0 to N-1 in any order; raises ValueError otherwise, because the server counts a missing row as a
    wrong answer. STS-B's scores are clipped to 0..5. Raises StorageError.
    """
    name = SUBMISSIONS.get((task.name, split))
    if name is None or set(task.labels) != set(GLUE[task.name].labels):
        return None
    rows = _ordered(indexes)
    if not np.array_equal(np.asarray(indexes)[rows], np.arange(len(rows))):
        raise ValueError(f"a submission for {task.name!r} needs every row of {split!r}, and indexes have gaps")
    values_N = np.asarray(predictions)[rows]
    if task.regression:
        cells = [f"{value:.3f}" for value in np.clip(values_N, 0.0, 5.0).tolist()]
    elif task.name in _NAMED_LABELS:
        cells = [task.labels[value] for value in values_N.tolist()]
    else:
        cells = [str(GLUE[task.name].labels.index(task.labels[value])) for value in values_N.tolist()]
    path = Path(output_dir) / SUBMISSION / name
    _write_tsv(path, ["index", "prediction"], [range(len(rows)), cells])
    return path


def _ordered(indexes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the positions that sort `indexes` in ascending order. Raises ValueError if an index comes twice."""
    indexes_N = np.asarray(indexes)
    order_N: npt.NDArray[np.int64] = np.argsort(indexes_N, kind="stable")
    if len(indexes_N) and (np.diff(indexes_N[order_N]) == 0).any():
        raise ValueError("an index comes twice among the predictions")
    return order_N


def _cells(values: npt.ArrayLike, rows: npt.NDArray[np.int64], task: Task) -> list[str]:
    """Return class names, or numbers that read back as the same float64; an unknown value gives an empty cell."""
    values_N = np.asarray(values)
    if task.multi_label:
        return _label_cells(values_N[rows], task)
    if values_N.shape != rows.shape:
        raise ValueError(f"{values_N.shape} values for {rows.shape} indexes")
    if task.regression:
        return ["" if value != value else repr(float(value)) for value in values_N[rows].tolist()]
    return [task.labels[value] if value >= 0 else "" for value in values_N[rows].tolist()]


def _label_cells(values_NC: npt.NDArray[np.generic], task: Task) -> list[str]:
    """Return the names of each row's labels as a run reads them: "joy;anger", "[]" for none, "" for unknown labels."""
    cells = []
    for row in values_NC.tolist():
        names = [name for name, value in zip(task.labels, row, strict=True) if value > 0]
        cells.append("" if row[0] == -1 and values_NC.dtype.kind == "i" else label_cell(names, task.labels))
    return cells


def label_cell(names: Sequence[str], labels: Sequence[str]) -> str:
    """Return the `names` of a row's labels as a run reads them; `labels` are those of all rows.

    "joy;anger", or a JSON list where a label has a character that separates labels; "[]" for none.
    """
    return "[]" if not names else json.dumps(names, ensure_ascii=False) if _separated(labels) else ";".join(names)


def _separated(labels: Sequence[str]) -> bool:
    """Return True if a label has a character that separates labels."""
    return any(mark in label for label in labels for mark in ";|,[")


def _write_tsv(path: Path | str, header: Sequence[str], columns: Sequence[Sequence[object]]) -> None:
    with atomic_open(path) as stream:
        write_csv(stream, chain([header], zip(*columns, strict=True)), "\t")
