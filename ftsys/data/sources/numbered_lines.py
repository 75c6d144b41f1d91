"""Hashes UTF-8 files and reads their lines and CSV records with line numbers, in bounded memory.

A byte order mark at the beginning is skipped. LF and CRLF end a line. Blank lines are allowed at the end only.
"""

import csv
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from ftsys.errors import DataError

_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20


def scan(path: Path) -> tuple[str, int]:
    """Return the hex SHA-256 of a file's bytes and its number of lines; blank lines at the end are not counted."""
    status = path.stat()
    return _scan(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=256)
def _scan(path: Path, _size: int, _mtime_ns: int, _inode: int) -> tuple[str, int]:
    digest = hashlib.sha256()
    breaks = pending = 0  # pending: line breaks after the last byte that is not one
    unfinished = False
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            body = chunk.rstrip(b"\r\n")
            if body:
                breaks += pending + body.count(b"\n")
                pending, unfinished = 0, True
            pending += chunk.count(b"\n", len(body))
    return digest.hexdigest(), breaks + unfinished


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end). Only LF and CRLF end a line: a text may contain others."""
    blank = 0
    with path.open("rb") as stream:
        _skip_bom(stream)
        for number, raw in enumerate(stream, 1):
            line = _decode(raw, number, path).removesuffix("\n").removesuffix("\r")
            if not line:
                blank = blank or number
                continue
            if blank:
                raise DataError(f"{path}, line {blank}: the line is blank, and rows follow it. Remove it.")
            yield number, line


def csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the line on which the record starts, fields)."""
    with path.open("rb") as stream:
        _skip_bom(stream)
        reader = csv.reader((_decode(raw, number, path) for number, raw in enumerate(stream, 1)), strict=True)
        blank = 0
        while True:
            start = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"{path}, line {start}: broken CSV ({error}). Correct the quoting of this row."
                ) from error
            if record is None:
                return
            if not record:
                blank = blank or start
                continue
            if blank:
                raise DataError(f"{path}, line {blank}: the line is blank, and rows follow it. Remove it.")
            yield start, record


def _skip_bom(stream: BinaryIO) -> None:
    if stream.read(len(_BOM)) != _BOM:
        stream.seek(0)


def _decode(raw: bytes, number: int, path: Path) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = raw[error.start : error.start + 8]
        raise DataError(f"{path}, line {number}: not UTF-8 text (bytes {bad!r}). Convert the file to UTF-8.") from error
