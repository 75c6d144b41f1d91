"""Reads JSON as a stream: an object on each line, or one array of objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ftsys.data.sources.json_files import json_items
from ftsys.errors import DataError
from ftsys.files.untrusted import DoubleKeyError, row_object
from ftsys.score.readers.lines import Lines, TooLong
from ftsys.score.readers.rows import Fault, Line, Wanted


class JsonLinesReader:
    """A file with a JSON object on each line. The first object's keys are the columns."""

    unit = "line"

    def __init__(self, place: str, stream: BinaryIO) -> None:
        """Look at the first object. Raises DataError if there is none."""
        self.place, self._stream, self._lines = place, stream, Lines(stream)
        self._ready = list(self._up_to_first())
        found = self._ready[-1][1] if self._ready else None
        if not isinstance(found, dict):
            raise DataError(f"{place}: no line holds a JSON object. Write one object a line.")
        self.columns = tuple(found)

    def _up_to_first(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Yield broken lines and the first object; the search ends after 1,000 lines."""
        for at, (number, found) in enumerate(self._items()):
            yield number, found
            if isinstance(found, dict) or at == 1000:
                return

    def _items(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Yield (line number, object), or the reason in place of an object."""
        blank = 0
        while True:
            number = self._lines.hold()
            try:
                line = next(self._lines).strip()
            except StopIteration:
                return
            except ValueError as error:
                yield number, f"it has {error}" if isinstance(error, TooLong) else f"not UTF-8 text ({error})"
                continue
            if not line:
                blank = blank or number
                continue
            if blank:
                yield blank, "the line is blank"
                blank = 0
            yield number, _object(line)

    def read(self, wanted: Wanted) -> Iterator[Line]:
        """Yield all rows in order."""
        yield from _rows([*self._ready], wanted)
        yield from _rows(self._items(), wanted)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class JsonArrayReader:
    """A file that holds one array of objects. An array that is broken ends the reading."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        self.place, self._path = str(path), path
        first = next(json_items(path), None)
        if first is None:
            raise DataError(f"{path}: the array is empty. Write at least one object.")
        self.columns = tuple(first[1])

    def read(self, wanted: Wanted) -> Iterator[Line]:
        """Yield all rows in order. Raises DataError where the array is broken."""
        return _rows(json_items(self._path), wanted)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


def _object(line: str) -> dict[str, Any] | str:
    try:
        return row_object(line)
    except DoubleKeyError as error:
        return str(error)
    except ValueError as error:
        return f"no JSON object ({error})"


def _rows(items: Any, wanted: Wanted) -> Iterator[Line]:
    for number, found in items:
        if isinstance(found, str):
            yield Fault(number, found)
        elif missing := [name for name in wanted.texts if name not in found]:
            yield Fault(number, f"it has no {missing[0]!r}")
        else:
            texts = [found[name] for name in wanted.texts]
            yield wanted.line(number, texts, [found.get(name) for name in wanted.carried])
