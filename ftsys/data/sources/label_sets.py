"""Turns the labels of a multi-label split into rows of 1 and 0, one for each label of the task.

A row's labels are written in one of these forms:

1. One column for each label (`task.label_columns`), each cell 0 or 1, or true or false.
2. A list: names, ids, or as many 0 and 1 (or true and false, 0.0 and 1.0) as the task has labels.
3. Text: names or ids between ";", "|" or ",", such as "joy;anger"; a bit string with a digit for each label, such as
   "0110"; or a list between square brackets, as pandas writes it.
4. One name or id alone.

An empty list or "[]" is an example without any label; so is an empty cell, but in a test split that is an unlabelled
row. None and -1 mean unlabelled everywhere. A value with two readings is refused, and so is a probability, and a split
with bit strings beside shorter ones: those would be ids, and may have lost leading zeros.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ftsys.data.sources.labels import UNLABELLED, LabelReader, Where
from ftsys.errors import DataError
from ftsys.files.untrusted import parse_json
from ftsys.labels import UNKNOWN, ClassNames, as_seen, is_missing, number_of, truth_of
from ftsys.tasks import Task

Bits = tuple[int, ...]
_SEPARATORS = (";", "|", ",")
_KEPT_TEXTS = 4096
"""Rows of labels that are kept by their text: 4 MB of rows for 1,000 labels."""
_ITEM = re.compile(r"""'([^']*)'|"([^"]*)"|([^,\s][^,]*)""")


class _Unreadable(Exception):
    """Raised for a value without a reading; the message has no place yet."""


def reader_of(task: Task, required: bool) -> LabelReader:
    """Return the reader of a split's labels. With `required`, each row must have a label."""
    return LabelSetReader(task, required) if task.multi_label else LabelReader(task, required)


class LabelSetReader(LabelReader):
    """Reads the labels of one multi-label split, batch by batch, by the rules of this module."""

    advice = 'Label all rows of the split or none; write "[]" for a row without any of the labels.'

    def __init__(self, task: Task, required: bool) -> None:
        super().__init__(task, required)
        self._classes_of = ClassNames(task.labels)
        self._seen_names = frozenset(map(as_seen, task.labels))
        self._row_of = lru_cache(_KEPT_TEXTS)(self._row_of_text)
        self._digits: dict[bool, str] = {}
        """The first text of zeros and ones that is a bit string (True), and the first one that is too short for one."""

    def _read(self, values: Sequence[object], where: Where) -> np.ndarray:
        """Return int8 (rows, labels): 1 and 0, or -1 in the whole row of an unlabelled example."""
        rows = np.empty((len(values), len(self._task.labels)), np.int8)
        for index, value in enumerate(values):
            try:
                rows[index] = self._bits(value)
            except _Unreadable as error:
                raise DataError(f"{where(index)}: {error}") from None
        return rows

    def _missing(self, labels: np.ndarray) -> np.ndarray:
        return labels[:, 0] == UNLABELLED

    def _bits(self, value: object) -> npt.ArrayLike:
        if isinstance(value, str):
            return self._row_of(value)
        if isinstance(value, tuple):
            return self._of_cells(value)
        if isinstance(value, list):
            return self._of_items(value)
        if _is_unlabelled(value):
            return self._no_labels(value)
        item = int(value) if isinstance(value, float) and value.is_integer() else value
        bits = self._of_names([item])
        self._refuse_lost_zeros(str(item))
        return bits

    def _row_of_text(self, text: str) -> npt.NDArray[np.int8]:
        bits = self._of_text(text)
        self._refuse_lost_zeros(as_seen(text))
        return np.array(bits, np.int8)

    def _refuse_lost_zeros(self, text: str) -> None:
        """Refuse bit strings beside shorter texts of zeros and ones in one split."""
        labels = len(self._task.labels)
        if not text or len(text) > labels or not set(text) <= {"0", "1"}:
            return
        self._digits.setdefault(len(text) == labels, text)
        if len(self._digits) == 2:
            raise _Unreadable(
                f"labels {text!r}: {self._digits[True]!r} is a bit string, and {self._digits[False]!r} is read as one "
                f"label.{self._lost_zeros(self._digits[False])} Save the column as text, or write names."
            )

    def _no_labels(self, value: object) -> Bits:
        if self._required:
            raise _Unreadable(
                f"the labels are missing ({value!r}); only test splits may lack labels. Label the row or remove it; "
                'an empty list, or "[]" in a text file, is a row without any of the labels.'
            )
        return (UNLABELLED,) * len(self._task.labels)

    def _of_cells(self, cells: Sequence[object]) -> Bits:
        """Read one cell for each label. All of them may be unlabelled, in a test split."""
        if all(map(_is_unlabelled, cells)):
            return self._no_labels(cells[0])
        bits = [_bit(cell) for cell in cells]
        if None in bits:
            at = bits.index(None)
            raise _Unreadable(f"column {self._task.label_columns[at]!r} has {cells[at]!r}, and a label is 0 or 1.")
        return tuple(bit for bit in bits if bit is not None)

    def _of_text(self, text: str) -> Bits:
        seen, labels = as_seen(text), len(self._task.labels)
        if not seen:
            return (0,) * labels if self._required else self._no_labels(text)
        if number_of(seen) == UNLABELLED:
            return self._no_labels(text)
        named = self._classes_of.find(seen) if seen in self._seen_names else UNKNOWN
        as_list = self._list_in(seen)
        readings = {bits for bits in (self._one(named), as_list) if bits is not None}
        if len(readings) > 1:
            raise _Unreadable(
                f"labels {text!r} are the name of one label, and also a list of others. Rename the label, or write "
                "the row's labels as a JSON list."
            )
        return readings.pop() if readings else self._of_items([_plain(seen)])

    def _one(self, label: int) -> Bits | None:
        return None if label == UNKNOWN else tuple(int(index == label) for index in range(len(self._task.labels)))

    def _list_in(self, text: str) -> Bits | None:
        """Read a text that holds several labels; None for any other."""
        if len(text) == len(self._task.labels) > 1 and set(text) <= {"0", "1"}:
            return tuple(map(int, text))
        if text.startswith("[") and text.endswith("]"):
            return self._of_items(_bracketed(text))
        separator = next((mark for mark in _SEPARATORS if mark in text), None)
        if separator is None:
            return None
        items = [_plain(part.strip()) for part in text.split(separator)]
        named = as_seen(text) in self._seen_names
        return None if named and not all(map(self._is_known, items)) else self._of_items(items)

    def _is_known(self, item: object) -> bool:
        return self._classes_of.find(item) != UNKNOWN

    def _of_items(self, items: Sequence[object]) -> Bits:
        """Read a list of names or ids, or of one 0 or 1 for each label."""
        labels, bits = len(self._task.labels), [_bit(item) for item in items]
        if len(items) == labels and None not in bits and not all(isinstance(item, str) for item in items):
            if labels == 2 and {type(item) for item in items} == {int} and set(items) == {0, 1}:
                raise _Unreadable(
                    f"labels {list(items)!r} may be two ids, or 0 and 1 for each of the two labels. Write names, or "
                    "true and false."
                )
            return tuple(bit for bit in bits if bit is not None)
        if len(items) == labels and items and all(number_of(item) == UNLABELLED for item in items):
            return self._no_labels(list(items))
        return self._of_names(items)

    def _of_names(self, items: Sequence[object]) -> Bits:
        found = [0] * len(self._task.labels)
        for item in items:
            if isinstance(item, bool | float) or (isinstance(item, list | dict) or item is None):
                raise _Unreadable(
                    f"labels {list(items)[:20]!r} have {len(items)} values and task {self._task.name!r} has "
                    f"{len(found)} labels: write one 0 or 1 for each label, or the names of those that the row has."
                )
            label = self._classes_of.find(item)
            if label == UNKNOWN:
                raise _Unreadable(self._classes_of.complaint(item, self._task.name) + self._hint(item))
            if found[label]:
                raise _Unreadable(f"labels {list(items)[:20]!r} name {self._task.labels[label]!r} twice.")
            found[label] = 1
        return tuple(found)

    def _hint(self, item: object) -> str:
        text = str(item)
        return self._lost_zeros(text) if set(text) <= {"0", "1"} and len(text) > 1 else ""

    def _lost_zeros(self, text: str) -> str:
        digits = f"{len(text)} digit{'s' if len(text) > 1 else ''}"
        return f" As a bit string it has {digits}, not {len(self._task.labels)}: leading zeros may have been lost."


def _is_unlabelled(value: object) -> bool:
    return (is_missing(value) if not isinstance(value, list) else False) or number_of(value) == UNLABELLED


def _bit(value: object) -> int | None:
    """Return 1 or 0 for a number or truth value that is one, also as text; None for all others."""
    number, truth = number_of(value), truth_of(value)
    if truth is not None:
        return int(truth)
    return int(number) if number is not None and number in (0, 1) else None


def _plain(text: str) -> object:
    """Return the number that a text spells, as an int or, with a point, as a float; other texts as they are."""
    number = number_of(text)
    if number is None:
        return text
    return int(number) if "." not in text and "e" not in text.lower() else float(number)


def _bracketed(text: str) -> list[object]:
    """Return the items of a list as JSON or Python writes it."""
    try:
        found = parse_json(text)
        return found if isinstance(found, list) else [text]
    except ValueError:
        return [_item(*match.groups()) for match in _ITEM.finditer(text[1:-1])]


def _item(quoted: str | None, doubly: str | None, bare: str | None) -> object:
    """Return an item of Python's spelling of a list: text if it is quoted, else a number or a truth value."""
    if bare is None:
        return quoted if doubly is None else doubly
    truth = truth_of(bare)
    return _plain(bare.strip()) if truth is None else truth
