"""Reads rows from CSV, TSV, JSON lines and Parquet files with named columns, in bounded memory.

TSV is read as GLUE writes it: a line is a row, a tab ends a field, and quotes are data. CSV follows the usual quoting.
All text is UTF-8.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ftsys.data.sources.numbered_lines import csv_records, numbered_lines, scan
from ftsys.data.sources.rows import Columns, Rows, check_texts
from ftsys.errors import DataError
from ftsys.untrusted import parse_json

_LONGEST_CSV_FIELD = 1 << 24  # characters; without it, an unclosed quote would read the rest of the file as one field


@dataclass(frozen=True)
class TableFile:
    """One split in a file of its own. `header` names the fields of a file without a header line."""

    path: Path
    columns: Columns
    header: tuple[str, ...] | None = None

    @property
    def unit(self) -> str:
        """The unit of `Rows.lines`: 'line' or 'row'."""
        return "row" if self.path.suffix.lower() == ".parquet" else "line"

    def read(self, rows_per_batch: int) -> Iterator[Rows]:
        """Yield all rows in the file's order. Raises DataError with file and line for anything that cannot be read."""
        return _reader(self.path)(self, rows_per_batch)

    def rows(self) -> int | None:
        """Return the number of rows; None for CSV, whose fields may contain line breaks: only parsing it tells."""
        suffix = self.path.suffix.lower()
        if suffix == ".parquet":
            return int(_open_parquet(self.path).metadata.num_rows)
        if suffix == ".csv":
            return None
        has_header_line = suffix == ".tsv" and self.header is None
        return scan(self.path)[1] - has_header_line

    def sha256(self) -> str:
        """Return a hex digest of the file's bytes; computed once per process while the file does not change."""
        return scan(self.path)[0]


def check_file(path: Path) -> None:
    """Raise DataError unless `path` is a file that is not empty and has a known ending."""
    _reader(path)
    if not path.exists():
        raise DataError(f"{path}: no such file. Correct data.source.")
    if not path.is_file():
        raise DataError(f"{path} is not a file. Name a file for each split in data.source.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty. Copy or download it again, or correct data.source.")


def read_tsv(file: TableFile, rows_per_batch: int) -> Iterator[Rows]:
    """Yield rows of tab-separated text without quoting, as `csv.QUOTE_NONE`."""
    return _table(((number, line.split("\t")) for number, line in numbered_lines(file.path)), file, rows_per_batch)


def read_csv(file: TableFile, rows_per_batch: int) -> Iterator[Rows]:
    """Yield rows of comma-separated text; a quoted field may contain commas, quotes and line breaks."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CSV_FIELD))
    return _table(csv_records(file.path), file, rows_per_batch)


def read_jsonl(file: TableFile, rows_per_batch: int) -> Iterator[Rows]:
    """Yield rows of JSON lines: one object per line, with a key for each column."""
    lines = numbered_lines(file.path)
    while batch := list(islice(lines, rows_per_batch)):
        objects = [_json_object(line, number, file) for number, line in batch]
        numbers = [number for number, _ in batch]
        texts = [
            check_texts([row[name] for row in objects], name, str(file.path), "line", numbers)
            for name in file.columns.texts
        ]
        _check_encodable(texts, numbers, file.path)
        yield Rows.from_texts(texts, [row.get(file.columns.label) for row in objects], numbers)


def read_parquet(file: TableFile, rows_per_batch: int) -> Iterator[Rows]:
    """Yield rows of a Parquet file; memory is bounded by the size of its row groups."""
    import pyarrow

    parquet = _open_parquet(file.path)
    header = parquet.schema_arrow.names
    _, label = file.columns.find(header, str(file.path))
    wanted = [*file.columns.texts] + ([] if label is None else [file.columns.label])
    done = 0
    try:
        for batch in parquet.iter_batches(rows_per_batch, columns=wanted):
            numbers = range(done + 1, done + batch.num_rows + 1)
            texts = [
                check_texts(batch.column(name).to_pylist(), name, str(file.path), "row", numbers)
                for name in file.columns.texts
            ]
            yield Rows.from_texts(texts, None if label is None else batch.column(wanted[-1]).to_pylist(), numbers)
            done += batch.num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file.path}: broken after row {done} ({error}). Copy or write the file again.") from error


_READERS: dict[str, Callable[[TableFile, int], Iterator[Rows]]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".json": read_jsonl,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}


def _reader(path: Path) -> Callable[[TableFile, int], Iterator[Rows]]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: a file that ends in {path.suffix!r} cannot be read. Give it as one of {', '.join(_READERS)}."
        )
    return reader


def _table(records: Iterator[tuple[int, list[str]]], file: TableFile, rows_per_batch: int) -> Iterator[Rows]:
    """Yield the wanted columns of numbered records; the first record is the header unless `file.header` is given."""
    header = file.header or next(records, (1, []))[1]
    if not header:
        raise DataError(f"{file.path} has no header line, only blank ones. Copy or download it again.")
    texts, label = file.columns.find(header, str(file.path))
    while batch := list(islice(records, rows_per_batch)):
        rows = [row for _, row in batch]
        numbers = [number for number, _ in batch]
        if set(map(len, rows)) != {len(header)}:
            _refuse_fields(rows, numbers, len(header), file.path)
        labels: list[object] | None = None if label is None else [row[label] for row in rows]
        yield Rows.from_texts([[row[text] for row in rows] for text in texts], labels, numbers)


def _refuse_fields(fields: list[list[str]], numbers: list[int], expected: int, path: Path) -> None:
    row, number = next((row, number) for row, number in zip(fields, numbers, strict=True) if len(row) != expected)
    start = repr(("\t" if path.suffix.lower() == ".tsv" else ",").join(row)[:60])
    raise DataError(
        f"{path}, line {number}: {len(row)} fields instead of {expected} (it starts with {start}). Join or split "
        "what a stray separator or line break broke, or remove the row."
    )


def _json_object(line: str, number: int, file: TableFile) -> dict[str, Any]:
    place = f"{file.path}, line {number}"
    try:
        row = parse_json(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON ({error}). Write one JSON object a line.") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: {line[:60]!r} is not a JSON object. Write one object a line.")
    file.columns.find(list(row), place)
    return row


def _check_encodable(texts: list[list[str]], numbers: list[int], path: Path) -> None:
    """Raise DataError for half a surrogate pair, which JSON can express but no tokenizer accepts."""
    for column in texts:
        for text, number in zip(column, numbers, strict=True):
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise DataError(f"{path}, line {number}: half a surrogate pair in {text[:60]!r}. Write it as UTF-8.")


def _open_parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({error}). Copy or write it again.") from error
