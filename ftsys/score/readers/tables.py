"""Reads CSV and TSV as a stream. After a record that cannot be parsed, the next line begins a new one.

So one quotation mark costs one line. A record that can be parsed and has too many fields is one fault, with all its
lines.
"""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from ftsys.data.sources.dialect import Dialect
from ftsys.errors import DataError
from ftsys.labels import as_seen
from ftsys.score.readers.lines import LONGEST, Lines, TooLong
from ftsys.score.readers.rows import Fault, Line, Wanted


class TableReader:
    """A CSV or TSV file whose first record names the columns."""

    unit = "line"

    def __init__(self, place: str, stream: BinaryIO, dialect: Dialect) -> None:
        """Read the header. Raises DataError if there is none."""
        self.place, self._stream, self._dialect = place, stream, dialect
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
        self._records = _Records(place, Lines(stream), dialect)
        header = next(self._records, None)
        if header is None or isinstance(header, Fault):
            reason = "it is empty" if header is None else header.reason
            raise DataError(f"{place}: there is no header line ({reason}). Name the columns in the first line.")
        self._check_unquoted(*header)
        self.columns = tuple(as_seen(name) for name in header[1])

    def read(self, wanted: Wanted) -> Iterator[Line]:
        """Yield all rows in order."""
        texts, carried = ([self.columns.index(name) for name in names] for names in (wanted.texts, wanted.carried))
        width = len(self.columns)
        for record in self._records:
            if isinstance(record, Fault):
                yield record
                continue
            number, fields = record
            self._check_unquoted(number, fields)
            if len(fields) == width and tuple(map(as_seen, fields)) != self.columns:
                yield wanted.line(number, [fields[at] for at in texts], [fields[at] for at in carried])
            else:
                yield Fault(number, self._complaint(number, fields))

    def _check_unquoted(self, number: int, fields: list[str]) -> None:
        """Raise DataError for a quotation mark of which nothing tells whether it encloses the field."""
        if self._dialect.sure or not any(field.startswith('"') for field in fields):
            return
        raise DataError(
            f"{self.place}, line {number}: a field begins with a quotation mark. A stream cannot be looked through "
            "beforehand, so say with --quoting csv that such marks enclose fields, or with --quoting none that they "
            "belong to the texts."
        )

    def _complaint(self, number: int, fields: list[str]) -> str:
        if len(fields) == len(self.columns):
            return "it repeats the header line"
        begin, last = self._dialect.separator.join(fields)[:60], self._records.last_line
        several = f", up to line {last}" if last > number else ""
        return f"{len(fields)} fields instead of {len(self.columns)}{several} (it starts with {begin!r})"

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class _Records:
    """Iterates over (line number, fields) and faults. Blank lines are faults, except at the end of the file.

    Raises DataError where the records are so broken that the file would be read again and again.
    """

    def __init__(self, place: str, lines: Lines, dialect: Dialect) -> None:
        self._place, self._lines, self._dialect = place, lines, dialect
        self._ready: list[Fault | tuple[int, list[str]]] = []
        self._parser = self._new_parser()

    def _new_parser(self) -> Iterator[list[str]]:
        if self._dialect.quoted:
            return csv.reader(self._lines, strict=True, delimiter=self._dialect.separator)
        return (_fields(line, self._dialect.separator) for line in self._lines)

    def __iter__(self) -> "_Records":
        return self

    def __next__(self) -> Fault | tuple[int, list[str]]:
        if not self._ready:
            self._read()
        return self._ready.pop(0)

    def _read(self) -> None:
        """Put the next record that is not blank into `_ready`, behind a fault for the blank lines before it."""
        blank = 0
        while not (found := self._next_record()):
            blank = blank or self._lines.number
        self._ready = [Fault(blank, "the line is blank"), found] if blank else [found]

    def _next_record(self) -> Fault | tuple[int, list[str]] | None:
        """Return the next record or its fault; None for a blank line."""
        number = self._lines.hold()
        try:
            fields = next(self._parser)
        except (csv.Error, ValueError) as error:
            fault = Fault(number, self._reason(error))
            if not self._lines.back_to_second():
                raise DataError(
                    f"{self._place}, line {number}: too many quotation marks are never closed. If they belong to the "
                    "texts, write --quoting none, else correct them."
                ) from error
            self._parser = self._new_parser()
            return fault
        return (number, fields) if fields else None

    @property
    def last_line(self) -> int:
        """The number of the last line of the record that was read last."""
        return self._lines.number

    def _reason(self, error: ValueError | csv.Error) -> str:
        if isinstance(error, UnicodeDecodeError):
            return f"not UTF-8 text (bytes {error.object[error.start : error.start + 8]!r})"
        never_ends = isinstance(error, TooLong) or "unexpected end of data" in str(error)
        if self._dialect.quoted and never_ends and (self._lines.several or not isinstance(error, TooLong)):
            return "a quotation mark that is opened there is never closed"
        return f"it has {error}" if isinstance(error, TooLong) else f"broken CSV ({error})"


def _fields(line: str, separator: str) -> list[str]:
    line = line.removesuffix("\n").removesuffix("\r")
    return line.split(separator) if line else []
