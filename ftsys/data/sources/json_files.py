"""Reads rows from JSON: an object on each line, or one array of objects, in bounded memory."""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from ftsys.data.sources.numbered_lines import LONGEST, numbered_lines
from ftsys.data.sources.rows import Columns, Rows, check_texts
from ftsys.errors import DataError
from ftsys.files.untrusted import ROW_DECODER, DoubleKeyError, parse_row

Items = Iterator[tuple[int, dict[str, Any]]]

_CHUNK = 1 << 20  # characters
_ARRAY = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*([{\]]|\Z)")
_BLANK = re.compile(r"[\s,]*")
_ADVICE = 'Write one JSON object a line, as pandas does with to_json(path, orient="records", lines=True)'
_RENAME = "Rename or remove one of them"


def is_array(path: Path) -> bool:
    """Return True if the file begins as an array of objects, which may take any number of lines."""
    with path.open("rb") as stream:
        return _ARRAY.match(stream.read(4096)) is not None


def json_rows(path: Path, columns: Columns, rows_per_batch: int) -> Iterator[Rows]:
    """Yield the rows of a JSON file. Raises DataError with the line, or the row in an array, of a bad one."""
    unit = "row" if is_array(path) else "line"
    items = json_items(path)
    wanted = {*columns.required}
    while batch := list(islice(items, rows_per_batch)):
        numbers = [number for number, _ in batch]
        for number, row in batch:
            if not wanted <= row.keys():
                columns.find(list(row), f"{path}, {unit} {number}")
        texts = [check_texts([row[name] for _, row in batch], name, str(path), unit, numbers) for name in columns.texts]
        _check_encodable(texts, numbers, path, unit)
        labels = columns.joined([[row.get(name) for _, row in batch] for name in columns.labels])
        yield Rows.from_texts(texts, labels, numbers)


def json_items(path: Path) -> Items:
    """Yield (number of the line, or of the row in an array; object)."""
    return _array_items(path) if is_array(path) else _line_items(path)


def _line_items(path: Path) -> Items:
    for number, line in numbered_lines(path):
        place = f"{path}, line {number}"
        try:
            row = parse_row(line)
        except DoubleKeyError as error:
            raise DataError(f"{place}: {error}. {_RENAME}.") from error
        except ValueError as error:
            raise DataError(f"{place}: not JSON ({error}). {_ADVICE}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{place}: {line[:60]!r} is not a JSON object. {_ADVICE}.")
        yield number, row


def _array_items(path: Path) -> Items:
    """Yield the objects of a JSON array, reading no more of the file than the next object needs."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        try:
            yield from _Array(stream, path).items()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text ({error}). Convert the file to UTF-8.") from error


class _Array:
    """The text of a JSON array that was read and not yet parsed."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._text = ""
        self._at = 0
        self._parse: Callable[[str, int], tuple[Any, int]] = ROW_DECODER.raw_decode

    def items(self) -> Items:
        self._skip()
        self._at += 1  # the opening bracket
        number = 0
        while self._skip() and self._text[self._at] != "]":
            number += 1
            yield number, self._next(number)
        self._at += 1
        if self._at > len(self._text) or self._skip():
            raise self._error(number + 1, "the array's end is missing, or text follows it")

    def _skip(self) -> bool:
        """Go to the next character that is neither white space nor a comma; False at the end of the file."""
        while True:
            self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches any text
            if self._at < len(self._text):
                return True
            if not self._more():
                return False

    def _more(self) -> bool:
        """Read on, at least as much as is left, so that a long object is not parsed often."""
        left = self._text[self._at :]
        more = self._stream.read(max(_CHUNK, len(left)))
        self._text, self._at = left + more, 0
        return bool(more)

    def _next(self, number: int) -> dict[str, Any]:
        while True:
            begin = self._at
            try:
                row, self._at = self._parse(self._text, begin)
                break
            except DoubleKeyError as error:
                raise DataError(f"{self._path}, row {number}: {error}. {_RENAME}.") from error
            except RecursionError:
                raise self._error(number, "it is nested too deeply") from None
            except ValueError as error:
                if len(self._text) - begin > LONGEST or not self._more():
                    raise self._error(number, str(error)) from error
        if self._at - begin > LONGEST:
            raise self._error(number, f"it has more than {LONGEST:,} characters")
        if not isinstance(row, dict):
            raise DataError(f"{self._path}, row {number}: {str(row)[:60]!r} is not a JSON object. Correct the array.")
        return row

    def _error(self, number: int, reason: str) -> DataError:
        return DataError(f"{self._path}, row {number}: not a JSON array ({reason}). {_ADVICE}.")


def _check_encodable(texts: list[list[str]], numbers: list[int], path: Path, unit: str) -> None:
    """Raise DataError for half a surrogate pair, which JSON can express but no tokenizer accepts."""
    for column in texts:
        for text, number in zip(column, numbers, strict=True):
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise DataError(f"{path}, {unit} {number}: half a surrogate pair in {text[:60]!r}. Write it as UTF-8.")
