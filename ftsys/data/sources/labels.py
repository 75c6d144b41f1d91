"""Turns labels as files have them (class names, ids, scores; text or numbers) into ids and scores.

An error names the row of the first label that cannot be read.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ftsys.errors import DataError
from ftsys.tasks import GLUE, Task

_UNLABELLED = (-1, "-1", "-1.0")

Where = Callable[[int], str]
"""Maps a row's index within its batch to its place for a message, such as 'train.tsv, line 12'."""


class LabelReader:
    """Turns the raw labels of one split into an array, batch by batch.

    With `required`, each row must have a label. Otherwise (test splits) a missing label, or -1 as in the Hub's GLUE,
    means unlabelled. Then all rows of the split must be unlabelled: half a label column is a damaged file.
    """

    def __init__(self, task: Task, required: bool) -> None:
        self._task = task
        self._required = required
        self._unlabelled: bool | None = None
        self._ids = {} if task.regression else _class_ids(task, required)

    def read(self, raw: Sequence[object] | None, rows: int, where: Where) -> np.ndarray:
        """Return (rows,) labels: int64 ids (-1: unlabelled), or float64 scores (NaN: unlabelled) for regression.

        `raw` is None if the split has no label column. Raises DataError for the first label that is missing, out of
        range, unknown or not finite.
        """
        values = [None] * rows if raw is None else raw
        labels = self._scores(values, where) if self._task.regression else self._classes(values, where)
        self._refuse_mixture(labels, where)
        return labels

    def _classes(self, values: Sequence[object], where: Where) -> np.ndarray:
        try:
            return np.array([self._ids[value] for value in values], np.int64)
        except (KeyError, TypeError):  # TypeError: a list or a dict, which cannot be looked up
            bad = next(index for index, value in enumerate(values) if not self._is_known(value))
        raise DataError(f"{where(bad)}: {self._complaint(values[bad])}")

    def _is_known(self, value: object) -> bool:
        try:
            return value in self._ids
        except TypeError:
            return False

    def _complaint(self, value: object) -> str:
        names = ", ".join(repr(name) for name in self._task.labels)
        if _is_missing(value) or value in _UNLABELLED:
            return f"the label is missing ({value!r}); only test splits may lack labels. Label the row or remove it."
        return (
            f"label {value!r} is not a label of task {self._task.name!r}: write a name ({names}) or an id from 0 to "
            f"{len(self._task.labels) - 1}, or correct task.labels."
        )

    def _scores(self, values: Sequence[object], where: Where) -> np.ndarray:
        return np.array([self._score(value, index, where) for index, value in enumerate(values)], np.float64)

    def _score(self, value: object, index: int, where: Where) -> float:
        if _is_missing(value):
            if self._required:
                raise DataError(
                    f"{where(index)}: the score is missing ({value!r}); only test splits may lack scores. "
                    "Add it or remove the row."
                )
            return math.nan
        try:
            score = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # TypeError is caught
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"{where(index)}: score {value!r} is not a finite number. Correct it or remove the row.")
        return math.nan if self._stands_for_unlabelled(score) else score

    def _stands_for_unlabelled(self, score: float) -> bool:
        """Return True for -1 in a test split of GLUE, where no score is negative. In other tasks -1 is a score."""
        return not self._required and score == -1 and self._task.name in GLUE

    def _refuse_mixture(self, labels: np.ndarray, where: Where) -> None:
        missing = np.isnan(labels) if self._task.regression else labels < 0
        if self._unlabelled is None and missing.size:
            self._unlabelled = bool(missing[0])
        odd = np.flatnonzero(missing != self._unlabelled)
        if odd.size:
            has, others = ("a label", "have none") if self._unlabelled else ("no label", "have one")
            raise DataError(
                f"{where(int(odd[0]))}: the row has {has}, but the rows before it {others}. Label all rows of "
                "the split or none."
            )


def _class_ids(task: Task, required: bool) -> dict[object, int]:
    """Map every accepted spelling of a label to its id. Names come before ids: with labels ("1", "2"), 1 is class 0."""
    ids: dict[object, int] = {}
    for index in range(len(task.labels)):
        ids |= {index: index, str(index): index, f"{index}.0": index}  # pandas writes "1.0" in a column with gaps
    for index, name in enumerate(task.labels):
        ids[name] = index
        if name.isascii() and name.isdigit():
            ids |= {int(name): index, f"{int(name)}.0": index}
    if not required:
        ids |= {key: -1 for key in (*_UNLABELLED, None, "") if key not in ids}
    return ids


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
