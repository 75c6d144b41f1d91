"""Decides how a CSV or TSV file separates and quotes its fields, and says what it guessed.

The file's ending names the separator: a comma, or a tab. If the header line has the columns under another separator
only, that one is taken. CSV is quoted. For TSV both habits exist: GLUE's files are not quoted, those of pandas are. So
a TSV file with a field that begins with a quotation mark is read in both ways, and is refused if both are possible.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ftsys.data.sources.numbered_lines import csv_records, numbered_lines, scan
from ftsys.errors import DataError
from ftsys.labels import as_seen

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
AUTO, QUOTED, UNQUOTED = "auto", "csv", "none"
Records = Iterator[tuple[int, list[str]]]


@dataclass(frozen=True)
class Dialect:
    """The separator of a file's fields, whether they may be quoted, and a note on what was guessed (or "").

    `sure` is False if rows are broken with and without quoting, so that nothing tells whether the fields are quoted.
    """

    separator: str
    quoted: bool
    note: str = ""
    sure: bool = True

    def records(self, path: Path) -> Records:
        """Yield (line number, fields) of each record, the header line included."""
        if self.quoted:
            return csv_records(path, self.separator)
        return ((number, line.split(self.separator)) for number, line in numbered_lines(path))


def dialect_of(path: Path, wanted: tuple[str, ...], quoting: str, usual: str = "") -> Dialect:
    """Return the dialect of a CSV or TSV file whose header has the columns `wanted`.

    `quoting` is "csv", "none" or "auto". `usual` is a comma or a tab, by default as the file's name ends. Raises
    DataError if both ways of quoting are possible.
    """
    usual = usual or ("\t" if path.suffix.lower() == ".tsv" else ",")
    separator = _separator(path, wanted, usual)
    note = "" if separator == usual else f"{path}: its fields are separated by {_SEPARATORS[separator]}"
    if quoting != AUTO:
        return Dialect(separator, quoting == QUOTED, note)
    if usual == "," or separator != usual:
        return Dialect(separator, True, note)
    quoted = scan(path).quotes and _is_quoted(path, scan(path).sha256)
    note = f"{path}: its fields are quoted; their quotation marks are removed" if quoted else ""
    return Dialect(separator, bool(quoted), note, quoted is not None)


def _separator(path: Path, wanted: tuple[str, ...], usual: str) -> str:
    return separator_of(next(numbered_lines(path), (1, ""))[1], wanted, usual)


def separator_of(header: str, wanted: tuple[str, ...], usual: str) -> str:
    """Return the separator under which the header line has the wanted columns, else the one with most columns."""
    columns = {
        mark: [as_seen(name.strip().strip('"')) for name in header.split(mark)] for mark in (usual, *_SEPARATORS)
    }
    for separator, names in columns.items():
        if wanted and set(names).issuperset(map(as_seen, wanted)):
            return separator
    return usual if len(columns[usual]) > 1 else max(columns, key=lambda mark: len(columns[mark]))


@lru_cache(maxsize=256)
def _is_quoted(path: Path, _sha256: str) -> bool | None:
    """Return True if a TSV file is quoted, None if rows are broken in either case.

    Raises DataError if it can be read with and without quoting.
    """
    quoted = _Reading(csv_records(path, "\t"))
    plain = _Reading((number, line.split("\t")) for number, line in numbered_lines(path))
    if not quoted.possible:
        return False if plain.possible else None
    if not plain.possible or plain.header != quoted.header:
        return True
    doubt = _first_joined_lines(path) if quoted.records < plain.records else _first_needless_quotes(path)
    if doubt is None:
        return True
    raise DataError(
        f"{path}, {doubt}. "
        'If the marks belong to the text, as in GLUE\'s files, write data.quoting = "none" (run-glue: --quoting none). '
        'If they enclose it, as in files of other programs, write data.quoting = "csv" (--quoting csv).'
    )


class _Reading:
    """One way to read a file: it is possible if each record has as many fields as the header.

    `records` counts those after the header, up to the first that is not possible.
    """

    def __init__(self, records: Records) -> None:
        self.header: list[str] = []
        self.records, self.possible = 0, True
        try:
            self.header = next(records, (1, []))[1]
            for _, fields in records:
                if len(fields) != len(self.header):
                    self.possible = False
                    return
                self.records += 1
        except DataError:
            self.possible = False


def _first_joined_lines(path: Path) -> str | None:
    """Name the first field that quotes make of several lines; None if there is none."""
    for number, fields in csv_records(path, "\t"):
        for field in fields:
            if "\n" in field:
                return f"line {number}: with its quotation marks the field {field[:60]!r} takes several lines"
    return None


def _first_needless_quotes(path: Path) -> str | None:
    """Name the first field in quotes that has no quote inside; None if there is none.

    Programs quote a field because of the tabs, line breaks or quotes in it, so such quotes may belong to the text. The
    file has one record a line.
    """
    for number, line in numbered_lines(path):
        for field in line.split("\t") if '"' in line else ():
            if len(field) > 1 and field[0] == field[-1] == '"' and '""' not in field[1:-1]:
                return f"line {number}: the field {field[:60]!r} begins and ends with a quotation mark"
    return None
