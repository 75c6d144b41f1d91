"""Opens the files that a command names: by their endings, or as `--format` says; "-" is standard input."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ftsys.data.sources.dialect import AUTO, QUOTED, Dialect, dialect_of, separator_of
from ftsys.data.sources.json_files import is_array
from ftsys.data.sources.numbered_lines import check_text
from ftsys.errors import DataError
from ftsys.files.paths import expanded, there
from ftsys.score.readers.arrow import DatasetReader, ParquetReader
from ftsys.score.readers.json_rows import JsonArrayReader, JsonLinesReader
from ftsys.score.readers.rows import Reader
from ftsys.score.readers.tables import TableReader

STANDARD_INPUT = "-"
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
"""Formats by the end of a file's name."""
_STREAMED = ("csv", "tsv", "jsonl")


@dataclass(frozen=True)
class InputFile:
    """One file of the command line. `format` is a value of FORMATS or "datasets"; `quoting` that of `data.quoting`."""

    name: str
    format: str
    split: str | None = None
    quoting: str = AUTO

    @property
    def is_stream(self) -> bool:
        """Return True for standard input, which can be read once."""
        return self.name == STANDARD_INPUT

    @property
    def path(self) -> Path:
        """The file's path."""
        return expanded(self.name)

    def facts(self) -> dict[str, Any]:
        """Return what tells this input from another one: how it is read, and path, size and time of a file."""
        how = {"format": self.format, "split": self.split, "quoting": self.quoting}
        if self.is_stream:
            return {"name": self.name, **how}
        paths = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()]
        return {"name": str(self.path.absolute()), **how, "files": stats}

    def open(self, wanted: tuple[str, ...] = ()) -> Reader:
        """Open the file; `wanted` columns help to find the separator of a table. Raises DataError."""
        if self.format == "datasets":
            return DatasetReader(self.path, self.split)
        if self.format == "parquet":
            return ParquetReader(self.path)
        if self.format == "json" and is_array(self.path):
            return JsonArrayReader(self.path)
        place = "standard input" if self.is_stream else str(self.path)
        stream = _standard_input() if self.is_stream else self.path.open("rb")
        if self.format in ("json", "jsonl"):
            return JsonLinesReader(place, stream)
        return TableReader(place, stream, self._dialect(stream, wanted))

    def _dialect(self, stream: BinaryIO, wanted: tuple[str, ...]) -> Dialect:
        usual = "\t" if self.format == "tsv" else ","
        if not self.is_stream:
            return self._dialect_of_file(wanted, usual)
        # Of a stream only what is buffered can be looked at, so nothing after the header decides.
        header = stream.peek(1 << 16).split(b"\n")[0].decode("utf-8", "replace")  # type: ignore[attr-defined]  # buffered
        separator = separator_of(header, wanted, usual)
        if self.quoting != AUTO:
            return Dialect(separator, self.quoting == QUOTED)
        return Dialect(separator, quoted=separator != "\t", sure=separator != "\t")

    def _dialect_of_file(self, wanted: tuple[str, ...], usual: str) -> Dialect:
        found = dialect_of(self.path, wanted, self.quoting, usual)
        if not found.sure:
            raise DataError(
                f"{self.path}: fields begin with quotation marks, and some rows are broken whether these enclose the "
                "fields or belong to the texts. Say which with --quoting csv or --quoting none."
            )
        return found

    def estimated_rows(self) -> int | None:
        """Return the number of rows, for the progress: lines of a text file; None for standard input."""
        if self.is_stream:
            return None
        if self.format in ("parquet", "datasets"):
            reader: Any = self.open()
            return int(reader.rows)
        return None if self.format == "json" and is_array(self.path) else _lines(self.path) - (self.format != "jsonl")


def _standard_input() -> BinaryIO:
    """Return the stream. Raises DataError where there is none, as in a daemon."""
    if getattr(sys.stdin, "buffer", None) is None:
        raise DataError("standard input is closed: name a file, or give the rows as in `ftsys predict MODEL - < FILE`.")
    return sys.stdin.buffer


def input_file(name: str, form: str | None, split: str | None, quoting: str) -> InputFile:
    """Return the input that `name` names. Raises DataError for one that is missing, empty, or of no known format."""
    if name == STANDARD_INPUT:
        return InputFile(name, _stream_format(form), None, quoting)
    path = expanded(name)
    if there(path) and path.is_dir():
        return InputFile(name, "datasets", split)
    if not there(path) or not path.is_file():
        raise DataError(f"{name}: no such file. Correct the name.")
    known = form or FORMATS.get(path.suffix.lower())
    if known is None:
        raise DataError(
            f"{name}: a file that ends in {path.suffix!r} cannot be read. Give it one of the endings "
            f"{', '.join(FORMATS)}, or name its format with --format."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{name} is empty. Copy or write it again.")
    if known != "parquet":
        check_text(path)
    return InputFile(name, known, None, quoting)


def _stream_format(form: str | None) -> str:
    if form in _STREAMED:
        return str(form)
    raise DataError(f"standard input has no ending: name its format with --format, one of {', '.join(_STREAMED)}.")


def _lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
