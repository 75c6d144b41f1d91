"""Writes windows of columns as CSV, JSON lines or Parquet, and joins them to one file."""

import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from ftsys.errors import ConfigError
from ftsys.files.csv_lines import write_csv
from ftsys.files.json_safe import json_safe
from ftsys.run_folder.predictions import label_cell

OUTPUTS = (".csv", ".jsonl", ".parquet")
"""Endings of outputs."""
Columns = Mapping[str, Sequence[Any]]


class Format(Protocol):
    """A form of the output. Joined windows are the same bytes as if all had been written at once."""

    def encode(self, columns: Columns) -> bytes:
        """Return the bytes of one window, whose columns all have the same length."""

    def join(self, parts: Sequence[Path], names: Sequence[str], stream: IO[bytes]) -> None:
        """Write the windows in `parts`, which have the columns `names`, to `stream`."""


class Csv:
    """A header line, then a line for each row. Missing values are empty; the labels of a row are joined by ";"."""

    def encode(self, columns: Columns) -> bytes:
        """Return the lines of one window, without the header."""
        return _csv_lines(zip(*(map(_cell, values) for values in columns.values()), strict=True))

    def join(self, parts: Sequence[Path], names: Sequence[str], stream: IO[bytes]) -> None:
        """Write the header and the lines of all windows."""
        stream.write(_csv_lines([names]))
        _concatenate(parts, stream)


class JsonLines:
    """A JSON object for each row."""

    def encode(self, columns: Columns) -> bytes:
        """Return the lines of one window."""
        names = list(columns)
        rows = zip(*columns.values(), strict=True)
        return "".join(f"{_json(dict(zip(names, row, strict=True)))}\n" for row in rows).encode()

    def join(self, parts: Sequence[Path], names: Sequence[str], stream: IO[bytes]) -> None:
        """Write the lines of all windows."""
        _concatenate(parts, stream)


class Parquet:
    """A row group for each window. Scores are float64; `types` are Arrow's types of columns that are no scores."""

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._types = types

    def encode(self, columns: Columns) -> bytes:
        """Return a whole Parquet file of one window."""
        import pyarrow as pa
        import pyarrow.parquet

        arrays = [pa.array(self._values(name, values), self._type(name)) for name, values in columns.items()]
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, schema=self._schema(list(columns))), sink)
        return sink.getvalue()

    def join(self, parts: Sequence[Path], names: Sequence[str], stream: IO[bytes]) -> None:
        """Write the row groups of all windows into one file."""
        import pyarrow.parquet

        with pyarrow.parquet.ParquetWriter(stream, self._schema(names)) as writer:
            for part in parts:
                # A ParquetFile has no columns of its folders' names ("key=value"), which read_table may add.
                with pyarrow.parquet.ParquetFile(part) as window:
                    # Parquet has no seconds and no date64: such a column comes back as another type.
                    writer.write_table(window.read().cast(writer.schema))

    def _type(self, name: str) -> Any:
        import pyarrow as pa

        return self._types.get(name, pa.float64())

    def _schema(self, names: Sequence[str]) -> Any:
        import pyarrow as pa

        return pa.schema([(name, self._type(name)) for name in names])

    def _values(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        import pyarrow as pa

        if self._type(name) != pa.string():
            return values
        return [value if value is None or isinstance(value, str) else _text_or_none(value) for value in values]


def _text_or_none(value: object) -> str | None:
    """Return a value as JSON; None for a number that is none, which a column has for a missing value."""
    return None if value != value else _json(value)


def format_of(output: Path, types: Mapping[str, Any]) -> Format:
    """Return the format by the end of the file's name. Raises ConfigError for any other end."""
    known: dict[str, Format] = dict(zip(OUTPUTS, (Csv(), JsonLines(), Parquet(types)), strict=True))
    ending = output.suffix.lower()
    if ending not in known:
        raise ConfigError(
            f"--output {str(output)!r} ends in {ending!r}: give it one of the endings {', '.join(known)}."
        )
    return known[ending]


def _concatenate(parts: Sequence[Path], stream: IO[bytes]) -> None:
    for part in parts:
        with part.open("rb") as source:
            shutil.copyfileobj(source, stream, 1 << 20)


def _csv_lines(rows: Iterable[Iterable[str]]) -> bytes:
    lines = io.StringIO(newline="")
    write_csv(lines, rows)
    return lines.getvalue().encode()


def _cell(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return label_cell(value, value)
    return _json(value) if isinstance(value, list | dict) else str(value)


def _json(value: object) -> str:
    return json.dumps(_safe(value), ensure_ascii=False, allow_nan=False)


def _safe(value: object) -> Any:
    """Return `value` as JSON can hold it; what it cannot hold, such as a date, becomes text."""
    if isinstance(value, dict):
        return {str(key): _safe(each) for key, each in value.items()}
    try:
        return json_safe(value)
    except TypeError:
        return str(value)
