"""Defines the common form of all readers: the columns of a file, and its rows one after another."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ftsys.did_you_mean import question
from ftsys.errors import DataError
from ftsys.files.json_safe import json_safe

READ_ROWS = 1024
"""Rows that are taken at once from a file of columns."""


class Row(NamedTuple):
    """A row that can be scored. `number` is its line or row in the file, from 1."""

    number: int
    texts: tuple[str, ...]
    carried: tuple[Any, ...]


class Fault(NamedTuple):
    """A row that cannot be used, with the reason."""

    number: int
    reason: str


Line = Row | Fault


@dataclass(frozen=True)
class Wanted:
    """The columns to read: one or two texts, and those that go to the output unchanged."""

    texts: tuple[str, ...]
    carried: tuple[str, ...] = ()

    def check(self, place: str, header: Sequence[str], flag: str = "--text") -> None:
        """Raise DataError that begins with `place` for a column that `header` lacks or has more than once.

        `flag` names the text columns, for the message.
        """
        there = ", ".join(map(repr, header))
        for named_by, names in ((flag, self.texts), ("--columns", self.carried)):
            missing = [name for name in names if name not in header]
            if missing:
                raise DataError(
                    f"{place}: no column {missing[0]!r}; the columns there are {there}."
                    f"{question(missing[0], header)} Name what is there with {named_by}."
                )
        twice = [name for name in (*self.texts, *self.carried) if header.count(name) > 1]
        if twice:
            raise DataError(f"{place}: column {twice[0]!r} is there more than once; rename or remove one of them.")

    def line(self, number: int, texts: Sequence[Any], carried: Sequence[Any]) -> Line:
        """Return a row of these values, or a fault if a text is none."""
        for name, text in zip(self.texts, texts, strict=True):
            if not isinstance(text, str):
                return Fault(number, f"column {name!r} is {_shown(text)}, not text")
        for name, value in zip((*self.texts, *self.carried), (*texts, *carried), strict=True):
            if isinstance(value, str | list | dict) and (why := _why_not_written(value)):
                return Fault(number, f"column {name!r} {why}")
        return Row(number, tuple(map(str, texts)), tuple(carried))  # NumPy has a kind of str of its own


def _why_not_written(value: str | list[Any] | dict[str, Any]) -> str:
    """Return the reason why no file can hold the value, or ""."""
    if isinstance(value, str) and value.isascii():
        return ""
    try:
        (value if isinstance(value, str) else json.dumps(json_safe(value), ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is no Unicode text"
    except RecursionError:
        return "is nested too deeply"
    except TypeError:
        pass  # it is no JSON, which not every output needs
    return ""


class Reader(Protocol):
    """A file that is open for reading once, from its beginning to its end."""

    place: str
    unit: str
    """The unit of `Row.number`: "line" or "row"."""
    columns: tuple[str, ...]

    def read(self, wanted: Wanted) -> Iterator[Line]:
        """Yield all rows in order. Raises DataError where the rest of the file cannot be read."""

    def close(self) -> None:
        """Close the file."""


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]
