"""Hashes UTF-8 files and reads their lines and CSV records with line numbers, in bounded memory.

A byte order mark at the beginning is skipped. LF and CRLF end a line. Blank lines are allowed at the end only.
"""

import csv
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ftsys.errors import DataError

_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20
LONGEST = 1 << 22
"""Bytes of a line or a record. Without a limit, an unclosed quotation mark would read the rest of a file as one field,
and a file without line ends would be one line."""
_FIELD_STARTS = (b'\n"', b'\t"')
_OTHER_FORMATS = (
    ((b"\xff\xfe", b"\xfe\xff"), "UTF-16 text", "Convert it: iconv -f UTF-16 -t UTF-8 (Excel: save as CSV UTF-8)"),
    ((b"PK\x03\x04",), "an Excel or ZIP file", "Save the table as CSV UTF-8"),
    ((b"\x1f\x8b",), "compressed with gzip", "Unpack it"),
    ((b"PAR1",), "a Parquet file", "Rename it to .parquet"),
)


class Scan(NamedTuple):
    """Facts of a file's bytes: hex SHA-256, number of lines, and whether a field after a tab may begin with a quote.

    Blank lines at the end are not counted.
    """

    sha256: str
    lines: int
    quotes: bool


def scan(path: Path) -> Scan:
    """Read the facts of a file; once per process while the file does not change."""
    status = path.stat()
    return _scan(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=256)
def _scan(path: Path, _size: int, _mtime_ns: int, _inode: int) -> Scan:
    digest = hashlib.sha256()
    breaks = pending = 0  # pending: line breaks after the last byte that is not one
    unfinished = quotes = False
    last = b"\n"
    with path.open("rb") as stream:
        _skip_bom(stream)
        digest.update(_BOM[: stream.tell()])
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            quotes = quotes or any(start in chunk for start in _FIELD_STARTS) or last + chunk[:1] in _FIELD_STARTS
            last = chunk[-1:]
            body = chunk.rstrip(b"\r\n")
            if body:
                breaks += pending + body.count(b"\n")
                pending, unfinished = 0, True
            pending += chunk.count(b"\n", len(body))
    return Scan(digest.hexdigest(), breaks + unfinished, quotes)


def short_lines(path: Path, separator: str) -> int:
    """Count the lines with fewer fields than the first one; once per process while the file does not change."""
    return _short_lines(path, scan(path).sha256, separator.encode())


@lru_cache(maxsize=256)
def _short_lines(path: Path, _sha256: str, separator: bytes) -> int:
    with path.open("rb") as stream:
        counts = (line.count(separator) for _, line in _numbered(stream, path) if line.strip(b"\r\n"))
        wanted = next(counts, 0)
        return sum(count < wanted for count in counts)


def check_text(path: Path) -> None:
    """Raise DataError for a file that is obviously no UTF-8 text, by its first bytes."""
    with path.open("rb") as stream:
        start = stream.read(_CHUNK)
    for marks, kind, advice in _OTHER_FORMATS:
        if start.startswith(marks):
            raise DataError(f"{path} is {kind} (it begins with the bytes {start[:4]!r}). {advice}.")
    if not any(start[1:8:2]) or not any(start[0:8:2]):  # names in the header have no zero bytes
        raise DataError(f"{path}: every other byte is zero, as in UTF-16 text. Convert it: iconv -f UTF-16LE -t UTF-8.")
    if b"\r" in start and b"\n" not in start:
        raise DataError(f"{path}: a carriage return (CR) alone ends its lines. Save it with LF or CRLF.")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end). Only LF and CRLF end a line: a text may contain others."""
    blank = 0
    with path.open("rb") as stream:
        _skip_bom(stream)
        for number, raw in _numbered(stream, path):
            line = _decode(raw, number, path).removesuffix("\n").removesuffix("\r")
            if not line:
                blank = blank or number
                continue
            if blank:
                raise DataError(f"{path}, line {blank}: the line is blank, and rows follow it. Remove it.")
            yield number, line


def csv_records(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the line on which the record starts, fields)."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    with path.open("rb") as stream:
        _skip_bom(stream)
        lines = _Record(stream, path)
        reader = csv.reader(lines, strict=True, delimiter=delimiter)
        blank = 0
        while True:
            lines.begin()
            start = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"{path}, line {start}: broken CSV ({error}). Correct the quoting of this row; if quotes belong to "
                    'the text, write data.quoting = "none" (run-glue: --quoting none).'
                ) from error
            if record is None:
                return
            if not record:
                blank = blank or start
                continue
            if blank:
                raise DataError(f"{path}, line {blank}: the line is blank, and rows follow it. Remove it.")
            yield start, record


class _Record:
    """Iterates over decoded lines. `begin` starts a record, which has at most LONGEST bytes: csv.Error for more."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._lines, self._path, self._size = _numbered(stream, path), path, 0

    def begin(self) -> None:
        """Count the bytes of the next record."""
        self._size = 0

    def __iter__(self) -> "_Record":
        return self

    def __next__(self) -> str:
        number, raw = next(self._lines)
        self._size += len(raw)
        if self._size > LONGEST:
            raise csv.Error(f"more than {LONGEST:,} bytes")
        return _decode(raw, number, self._path)


def _numbered(stream: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line with its end). Raises DataError for one of more than LONGEST bytes."""
    for number in count(1):
        raw = stream.readline(LONGEST + 1)
        if len(raw) > LONGEST:
            raise DataError(
                f"{path}, line {number}: more than {LONGEST:,} bytes. End the rows with LF; shorten its text."
            )
        if not raw:
            return
        yield number, raw


def _skip_bom(stream: BinaryIO) -> None:
    if stream.read(len(_BOM)) != _BOM:
        stream.seek(0)


def _decode(raw: bytes, number: int, path: Path) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = raw[error.start : error.start + 8]
        raise DataError(
            f"{path}, line {number}: not UTF-8 text (bytes {bad!r}). Convert the file to UTF-8; if it comes from "
            "Windows: iconv -f WINDOWS-1252 -t UTF-8."
        ) from error
