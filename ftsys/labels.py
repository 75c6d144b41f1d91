"""Decides which class a label means: one rule for files, data sets and models.

A label is read in this order, and the first reading that finds a class counts:

1. As text. Names are compared as they look: composed Unicode (NFC), each run of white space as one space, none at the
   ends, and no invisible characters (byte order marks, zero-width spaces). Upper and lower case are different.
2. As a number: 1, 1.0, "1.0" and "01" are the class whose name is that number.
3. As a truth value: true, "True" and "TRUE" are the class named "true", in any case. A truth value is no number.
4. As an id: a whole number from 0, in the order of the names. There are no ids where a class is named by a number.

A label that has two readings, such as 1 with the classes "true" and "false", is refused. Imports no numpy.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cached_property

from ftsys.did_you_mean import nearest

UNKNOWN = -2
"""The id of a value that is no class."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_LONGEST_NUMBER = 308
"""In characters, as for integers in JSON: a longer text is a name. Python refuses to write integers of 4,300 digits."""
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_TRUTH = {"true": True, "false": False}
_MISSING_TO_PANDAS = frozenset(
    "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null".split(",")
)
"""The words that pandas' `read_csv` turns into a missing value, unless keep_default_na is False."""

_MOST_NAMES = 20  # names in a message


def as_seen(text: str) -> str:
    """Return `text` as it looks: NFC, white space as single spaces, without invisible characters."""
    if text.isascii():
        return " ".join(text.split())
    kept = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFC", kept).split())


def number_of(value: object) -> Decimal | None:
    """Return the number that a value is or spells; None for all others, truth values and infinities included."""
    if isinstance(value, bool):
        return None
    text = as_seen(value) if isinstance(value, str) else str(value) if isinstance(value, int | float | Decimal) else ""
    return Decimal(text) if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text) else None


def truth_of(value: object) -> bool | None:
    """Return the truth value that a value is or spells, in any case; None for all others."""
    if isinstance(value, bool):
        return value
    return _TRUTH.get(as_seen(value).lower()) if isinstance(value, str) else None


def is_missing(value: object) -> bool:
    """Return True for None, NaN and text that looks empty: all forms of a cell that was left out."""
    return value is None or value != value or (isinstance(value, str) and not as_seen(value))


def visible(text: str) -> str:
    """Return `text` in quotes, and with its hidden differences in escapes if it is not plain ASCII."""
    return repr(text) if text.isascii() else f"{text!r} ({text!a})"


def look_alikes(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that look the same, if there are any."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(as_seen(name), name)) is not name:
            return other, name
    return None


class ClassNames:
    """The names of a task's classes in the order of their ids, and the reading of labels as classes."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._by_text = {as_seen(name): index for index, name in enumerate(names)}
        self._by_number: dict[Decimal | None, set[int]] = defaultdict(set)
        self._by_truth: dict[bool | None, set[int]] = defaultdict(set)
        for index, name in enumerate(names):
            self._by_number[number_of(name)].add(index)
            self._by_truth[truth_of(name)].add(index)

    @cached_property
    def have_ids(self) -> bool:
        """True if labels may be ids: no class is named by a number."""
        return not set(self._by_number) - {None}

    def find(self, value: object) -> int:
        """Return the id of the class that `value` means; UNKNOWN if it is no class, or if two readings differ."""
        if isinstance(value, str) and (found := self._by_text.get(as_seen(value))) is not None:
            return found
        classes = set(self.readings(value).values())
        return classes.pop() if len(classes) == 1 else UNKNOWN

    def readings(self, value: object) -> dict[str, int]:
        """Return the classes that a value may mean besides its text, each with a clause for a message."""
        number, truth = number_of(value), truth_of(value)
        found: dict[str, int] = {}
        if number is not None:
            same = sorted(self._by_number.get(number, ()))
            found |= {f"as a number it is the class {self.names[index]!r}": index for index in same}
        if truth is not None:
            found |= self._truths(truth)
        if number is not None and self.have_ids and 0 <= number < len(self.names) and number == int(number):
            found[f"as an id it is the class {self.names[int(number)]!r}"] = int(number)
            found |= self._truths(bool(number)) if number in (0, 1) else {}
        return found

    def _truths(self, truth: bool) -> dict[str, int]:
        same = sorted(self._by_truth.get(truth, ()))
        return {f"as a truth value it is the class {self.names[index]!r}": index for index in same}

    def find_without_case(self, value: str) -> int:
        """Return the id as `find`, or else the id of the only class that differs in upper and lower case alone."""
        found = self.find(value)
        same = [index for index, name in enumerate(self.names) if _folded(name) == _folded(value)]
        return same[0] if found == UNKNOWN and len(same) == 1 else found

    def complaint(self, value: object, task: str) -> str:
        """Return why `value` is no class of `task`, and what to write."""
        if not isinstance(value, str | int | float | Decimal):
            return (
                f"label {value!r} is not a label of task {task!r}: it is of type {type(value).__name__}, neither text "
                "nor a number. Correct the row."
            )
        readings = self.readings(value)
        if len(readings) > 1:
            return f"label {value!r} is ambiguous: {', '.join(readings)}. Write the name of the class."
        if isinstance(value, bool):
            return (
                f"label {value!r} is a truth value, and no class of task {task!r} is named {str(value).lower()!r}: "
                f"write a name ({self.listed()}), or correct task.labels."
            )
        return self._unknown(value, task)

    def _unknown(self, value: str | float | Decimal, task: str) -> str:
        shown = visible(value) if isinstance(value, str) else repr(value)
        ids = f" or an id from 0 to {len(self.names) - 1}" if self.have_ids else ""
        return (
            f"label {shown} is not a label of task {task!r}: write a name ({self.listed()}){ids}, or correct "
            f"task.labels.{self._hint(str(value))}"
        )

    def _hint(self, text: str) -> str:
        """Return a sentence on what probably happened to a label on its way, or nothing."""
        same = [name for name in self.names if _folded(name) == _folded(text)]
        if same:
            return f" It differs from {visible(same[0])} only in upper and lower case."
        if text.strip() in _MISSING_TO_PANDAS:
            return " Other programs write a missing value like this."
        if _DECIMAL_COMMA.fullmatch(text.strip()):
            return f" It has a decimal comma; the number is {text.strip().replace(',', '.')}."
        near = nearest(text, self.names)
        return f" Did you mean {visible(near)}?" if near else ""

    def missing_hint(self) -> str:
        """Return a sentence on classes whose names other programs take for a missing value; empty if there are none."""
        words = [name for name in self.names if name in _MISSING_TO_PANDAS]
        if not words:
            return ""
        return f" (pandas reads the class {words[0]!r} as a missing value, unless keep_default_na is False.)"

    def listed(self) -> str:
        """Return the names for a message; of many, the first ones and their number."""
        names = ", ".join(repr(name) for name in self.names[:_MOST_NAMES])
        return names if len(self.names) <= _MOST_NAMES else f"{names}, ... ({len(self.names)} classes)"


def _folded(text: str) -> str:
    return as_seen(text).casefold()
