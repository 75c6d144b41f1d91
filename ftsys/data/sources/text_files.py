"""Reads rows from CSV, TSV, JSON and Parquet files with named columns, in bounded memory. All text is UTF-8."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from ftsys.data.sources.dialect import AUTO, Dialect, Records, dialect_of
from ftsys.data.sources.json_files import is_array, json_items, json_rows
from ftsys.data.sources.numbered_lines import check_text, scan, short_lines
from ftsys.data.sources.parquet_files import open_parquet, parquet_batches, parquet_rows
from ftsys.data.sources.rows import Columns, Rows
from ftsys.errors import DataError
from ftsys.files.paths import there
from ftsys.labels import as_seen

_PARQUET, _JSON, _TABLES = (".parquet",), (".json", ".jsonl"), (".csv", ".tsv")
_ENDINGS = (*_TABLES, *_JSON, *_PARQUET)


@dataclass(frozen=True)
class TableFile:
    """One split in a file of its own. `header` names the fields of a file without a header line.

    `quoting` of CSV and TSV is "csv", "none" or "auto". `skips_short` leaves out rows with fewer fields than the first.
    """

    path: Path
    columns: Columns
    header: tuple[str, ...] | None = None
    quoting: str = AUTO
    skips_short: bool = False

    @property
    def ending(self) -> str:
        """The end of the file's name in lower case, such as ".csv"."""
        return self.path.suffix.lower()

    @property
    def unit(self) -> str:
        """The unit of `Rows.lines`: 'line' or 'row'."""
        return "row" if self.ending in _PARQUET or (self.ending in _JSON and is_array(self.path)) else "line"

    @cached_property
    def dialect(self) -> Dialect:
        """The separator and the quoting of a CSV or TSV file."""
        return dialect_of(self.path, self.columns.required, self.quoting)

    @property
    def note(self) -> str:
        """A note on what was guessed of the file's form, and on rows that are left out; empty if there is neither."""
        if self.ending not in _TABLES:
            return ""
        short = f"{self.path}: {self._short_rows:,} rows with fewer fields than the header are left out"
        return "; ".join(filter(None, (self.dialect.note, short if self._short_rows else "")))

    @property
    def _short_rows(self) -> int:
        return short_lines(self.path, self.dialect.separator) if self.skips_short else 0

    def read(self, rows_per_batch: int) -> Iterator[Rows]:
        """Yield all rows in the file's order. Raises DataError with file and line for anything that cannot be read."""
        if self.ending in _PARQUET:
            return parquet_rows(self.path, self.columns, rows_per_batch)
        if self.ending in _JSON:
            return json_rows(self.path, self.columns, rows_per_batch)
        return self._table_rows(rows_per_batch)

    def rows(self) -> int | None:
        """Return the number of rows; None if only parsing tells: quoted fields and JSON arrays may have line breaks."""
        if self.ending in _PARQUET:
            return int(open_parquet(self.path).metadata.num_rows)
        if self.ending in _JSON:
            return None if is_array(self.path) else scan(self.path).lines
        return None if self.dialect.quoted else scan(self.path).lines - (self.header is None) - self._short_rows

    def sha256(self) -> str:
        """Return a hex digest of bytes and reading; computed once per process while the file does not change."""
        digest = scan(self.path).sha256
        reading = "" if self.quoting == AUTO else f"{self.quoting} "
        if self._short_rows:
            reading += "without short rows "
        return hashlib.sha256(f"{reading}{digest}".encode()).hexdigest() if reading else digest

    def sample(self, count: int) -> dict[str, list[object]]:
        """Return the first `count` rows of all columns, by the column's name."""
        if self.ending in _PARQUET:
            batch = next(parquet_batches(self.path, None, count), None)
            return {} if batch is None else {name: batch.column(name).to_pylist() for name in batch.schema.names}
        if self.ending in _JSON:
            objects = [row for _, row in islice(json_items(self.path), count)]
            return {name: [row.get(name) for row in objects] for row in objects[:1] for name in row}
        records = self._records()
        header = self._header(records)
        self.columns.find(header, str(self.path))
        batch = list(islice(self._kept(records, len(header)), count))
        self._check_fields(batch, len(header))
        return {name: [row[index] for _, row in batch] for index, name in enumerate(header)}

    def _records(self) -> Records:
        return self.dialect.records(self.path)

    def _kept(self, records: Records, fields: int) -> Records:
        return ((number, row) for number, row in records if len(row) >= fields) if self.skips_short else records

    def _header(self, records: Records) -> Sequence[str]:
        """Return the names of the fields: the first record. Those that look like a wanted name have its spelling."""
        header = self.header or next(records, (1, []))[1]
        if not header:
            raise DataError(f"{self.path} has no header line, only blank ones. Copy or download it again.")
        wanted = {as_seen(name): name for name in (*self.columns.texts, *self.columns.labels)}
        return [name if name in wanted.values() else wanted.get(as_seen(name), name) for name in header]

    def _table_rows(self, rows_per_batch: int) -> Iterator[Rows]:
        """Yield the wanted columns; the first record is the header unless `header` is given."""
        records = self._records()
        header = self._header(records)
        texts, found = self.columns.find(header, str(self.path))
        records = self._kept(records, len(header))
        while batch := list(islice(records, rows_per_batch)):
            rows = [row for _, row in batch]
            numbers = [number for number, _ in batch]
            self._check_fields(batch, len(header))
            if header in rows:
                raise DataError(
                    f"{self.path}, line {numbers[rows.index(list(header))]}: repeats the header line. Remove it."
                )
            labels = None if found is None else self.columns.joined([[row[at] for row in rows] for at in found])
            yield Rows.from_texts([[row[text] for row in rows] for text in texts], labels, numbers)

    def _check_fields(self, batch: list[tuple[int, list[str]]], expected: int) -> None:
        counts = {len(row) for _, row in batch}
        if counts <= {expected}:
            return
        number, row = next((number, row) for number, row in batch if len(row) != expected)
        advice = "Join or split what a stray separator or line break broke, or remove the row."
        if counts == {expected + 1}:
            advice = (
                "All rows have one field more: the first one may be an index without a name. Name it in the header."
            )
        raise DataError(
            f"{self.path}, line {number}: {len(row)} fields instead of {expected} (it starts with "
            f"{self.dialect.separator.join(row)[:60]!r}). {advice}"
        )


def check_file(path: Path) -> None:
    """Raise DataError unless `path` is a file that is not empty, has a known ending, and begins like such a file."""
    if path.suffix.lower() not in _ENDINGS:
        raise DataError(
            f"{path}: a file that ends in {path.suffix!r} cannot be read. Give it as one of {', '.join(_ENDINGS)}."
        )
    if not there(path):
        raise DataError(f"{path}: no such file. Correct data.source.")
    if not path.is_file():
        raise DataError(f"{path} is not a file. Name a file for each split in data.source.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty. Copy or download it again, or correct data.source.")
    if path.suffix.lower() not in _PARQUET:
        check_text(path)
