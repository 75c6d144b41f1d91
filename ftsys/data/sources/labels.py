"""Turns the labels of a split (class names, numbers, ids, scores) into arrays of ids and scores.

`ftsys.labels` decides which class a label means. An error names the row of the first label that cannot be read.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np

from ftsys.errors import ConfigError, DataError
from ftsys.labels import UNKNOWN, ClassNames, is_missing, look_alikes, number_of, visible
from ftsys.tasks import GLUE, Task

Where = Callable[[int], str]
"""Maps a row's index within its batch to its place for a message, such as 'train.tsv, line 12'."""

UNLABELLED = -1
_KINDS = (str, int, float, bool, Decimal, type(None))


class LabelReader:
    """Turns the raw labels of one split into an array, batch by batch.

    With `required`, each row must have a label. Otherwise (test splits) a missing label, or -1 as in the Hub's GLUE,
    means unlabelled. Then all rows of the split must be unlabelled: half a label column is a damaged file.
    """

    advice = "Label all rows of the split or none."

    def __init__(self, task: Task, required: bool) -> None:
        self._task = task
        self._required = required
        self._unlabelled: bool | None = None
        check_names(task.labels)
        self._names = ClassNames(task.labels)
        # A table for each type: to Python 1, 1.0 and True are the same key.
        self._ids: dict[type, _Ids] = {kind: _Ids(self._id) for kind in _KINDS}

    def read(self, raw: Sequence[object] | None, rows: int, where: Where) -> np.ndarray:
        """Return (rows,) labels: int64 ids (-1: unlabelled), or float64 scores (NaN: unlabelled) for regression.

        `raw` is None if the split has no label column. Raises DataError for the first label that is missing, out of
        range, unknown or not finite.
        """
        values = [None] * rows if raw is None else raw
        labels = self._read(values, where)
        self._refuse_mixture(labels, where)
        return labels

    def _read(self, values: Sequence[object], where: Where) -> np.ndarray:
        return self._scores(values, where) if self._task.regression else self._classes(values, where)

    def _missing(self, labels: np.ndarray) -> np.ndarray:
        """Return (rows,) truth values: the row is unlabelled."""
        return np.isnan(labels) if self._task.regression else labels < 0

    def _classes(self, values: Sequence[object], where: Where) -> np.ndarray:
        kinds = set(map(type, values))
        if len(kinds) == 1 and (table := self._ids.get(kinds.pop())) is not None:
            labels = np.fromiter(map(table.__getitem__, values), np.int64, len(values))
        else:
            labels = np.array(
                [self._ids[type(value)][value] if type(value) in self._ids else UNKNOWN for value in values]
            )
        bad = np.flatnonzero(labels == UNKNOWN)
        if bad.size:
            raise DataError(f"{where(int(bad[0]))}: {self._complaint(values[bad[0]])}")
        return labels

    def _id(self, value: object) -> int:
        found = self._names.find(value)
        if found == UNKNOWN and not self._required and _is_unlabelled(value):
            return UNLABELLED
        return found

    def _complaint(self, value: object) -> str:
        if _is_unlabelled(value):
            return (
                f"the label is missing ({value!r}); only test splits may lack labels. Label the row or remove it."
                f"{self._names.missing_hint()}"
            )
        return self._names.complaint(value, self._task.name)

    def _scores(self, values: Sequence[object], where: Where) -> np.ndarray:
        scores = _plain_scores(values)
        if scores is None:
            scores = np.array([self._score(value, index, where) for index, value in enumerate(values)], np.float64)
        if not self._required and self._task.name in GLUE:
            scores[scores == UNLABELLED] = math.nan  # no score of GLUE is negative; in other tasks -1 is a score
        return scores

    def _score(self, value: object, index: int, where: Where) -> float:
        number = float(value) if type(value) is float else number_of(value)
        if number is not None and math.isfinite(number):
            return float(number)
        if not is_missing(value):
            raise DataError(f"{where(index)}: {_no_number(value)}. Correct it or remove the row.")
        if self._required:
            raise DataError(
                f"{where(index)}: the score is missing ({value!r}); only test splits may lack scores. "
                "Add it or remove the row."
            )
        return math.nan

    def _refuse_mixture(self, labels: np.ndarray, where: Where) -> None:
        missing = self._missing(labels)
        if self._unlabelled is None and missing.size:
            self._unlabelled = bool(missing[0])
        odd = np.flatnonzero(missing != self._unlabelled)
        if odd.size:
            has, others = ("a label", "have none") if self._unlabelled else ("no label", "have one")
            raise DataError(f"{where(int(odd[0]))}: the row has {has}, but the rows before it {others}. {self.advice}")


class _Ids(dict[object, int]):
    """The id of each value that was read before; reads a new value once. NaN equals nothing, so it is not kept."""

    def __init__(self, read: Callable[[object], int]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, value: object) -> int:
        found = self._read(value)
        if value == value:
            self[value] = found
        return found


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError if two names of classes look the same."""
    if pair := look_alikes(names):
        raise ConfigError(f"task.labels has two names that look the same: {visible(pair[0])} and {visible(pair[1])}.")


def _plain_scores(values: Sequence[object]) -> np.ndarray | None:
    """Return the scores at once if all are finite numbers in their usual spelling, else None."""
    kinds = set(map(type, values))
    if kinds == {str} and ("_" in (text := "".join(map(str, values))) or not text.isascii()):
        return None  # float() takes 1_000 and the digits of other scripts
    if kinds != {str} and not kinds <= {int, float}:
        return None
    try:
        scores = np.fromiter(map(float, values), np.float64, len(values))  # type: ignore[arg-type]  # of these kinds
    except (ValueError, OverflowError):
        return None
    return scores if np.isfinite(scores).all() else None


def _is_unlabelled(value: object) -> bool:
    return is_missing(value) or number_of(value) == UNLABELLED


def _no_number(value: object) -> str:
    comma = isinstance(value, str) and number_of(value.replace(",", ".", 1)) is not None
    hint = ": it has a decimal comma, write a point" if comma else ""
    return f"score {value!r} is not a finite number{hint}"
