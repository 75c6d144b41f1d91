"""Checks a zip of predictions against the format that the GLUE server accepts.

The server takes one zip with a file for each test set, the diagnostic set AX among them, and refuses a zip without one
of them (https://gluebenchmark.com/faq). Each file has a header, a row for each test example in the order of the
official file, and the predicted value in the last column. Row counts: the data card of nyu-mll/glue on the Hub.
"""

import csv
import io
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ftsys.errors import DataError

HEADER = ["index", "prediction"]

_CLASSES = ("0", "1")
_THREE = ("entailment", "neutral", "contradiction")
_TWO = ("entailment", "not_entailment")
_SCORES = (0.0, 5.0)


@dataclass(frozen=True)
class TestFile:
    """A file of a submission: its number of rows, and its label words; None where it holds scores from 0 to 5."""

    rows: int
    labels: tuple[str, ...] | None

    __test__ = False  # pytest would collect a class of this name


FILES: Mapping[str, TestFile] = {
    "CoLA.tsv": TestFile(1063, _CLASSES),
    "SST-2.tsv": TestFile(1821, _CLASSES),
    "MRPC.tsv": TestFile(1725, _CLASSES),
    "STS-B.tsv": TestFile(1379, None),
    "QQP.tsv": TestFile(390965, _CLASSES),
    "MNLI-m.tsv": TestFile(9796, _THREE),
    "MNLI-mm.tsv": TestFile(9847, _THREE),
    "QNLI.tsv": TestFile(5463, _TWO),
    "RTE.tsv": TestFile(3000, _TWO),
    "WNLI.tsv": TestFile(146, _CLASSES),
    "AX.tsv": TestFile(1104, _THREE),
}
"""Every file that the server demands."""

_MOST_BYTES = 64 * 2**20
"""Size of a file above which it is not read; the largest right one, QQP.tsv, has 4 MB."""


_BAD_ZIP: tuple[type[Exception], ...] = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, struct.error),
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError),
)
"""Errors by which `zipfile` says that a zip is damaged, or packed in a way that it cannot read."""


def check_submission(path: Path) -> list[str]:
    """Return every mistake of a zip, in words; an empty list for one that the server accepts.

    Raises DataError for a file that is no zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            mistakes = [
                f"{name} is missing: the server demands all {len(FILES)} files" for name in FILES if name not in names
            ]
            mistakes += [f"{name} is no file of a submission: leave it out" for name in names if name not in FILES]
            mistakes += [f"{name} is in it twice" for name in set(names) if names.count(name) > 1]
            for name in (name for name in FILES if name in names):
                mistakes += [f"{name}: {text}" for text in _mistakes(FILES[name], _read(archive, name))]
    except FileNotFoundError:
        raise DataError(f"{str(path)!r} does not exist: give the path of a submission's zip.") from None
    except _BAD_ZIP as error:
        raise DataError(f"{str(path)!r} cannot be read as a zip ({error}): write it again.") from error
    return mistakes


def _read(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """Return a file's bytes; None where it is too large to be one of a submission."""
    with archive.open(name) as stream:
        content = stream.read(_MOST_BYTES + 1)
    return content if len(content) <= _MOST_BYTES else None


def _mistakes(wanted: TestFile, content: bytes | None) -> Iterator[str]:
    """Yield what is wrong with a file, each kind of mistake once."""
    if content is None:
        yield f"it has more than {_MOST_BYTES:,} bytes"
        return
    try:
        text = io.StringIO(content.decode("utf-8"), newline="")
        header, *rows = [*csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        yield f"it is no table of UTF-8 text ({error})"
        return
    yield from _row_mistakes(wanted, header, rows)


def _row_mistakes(wanted: TestFile, header: list[str], rows: list[list[str]]) -> Iterator[str]:
    if header != HEADER:
        yield f"its header is {' '.join(header)!r}, not 'index prediction' with a tab between them"
    if len(rows) != wanted.rows:
        yield f"it has {len(rows):,} rows, the test set has {wanted.rows:,}"
    yield from _first(
        f"row {number + 1} has {len(row)} fields, not 2" for number, row in enumerate(rows) if len(row) != 2
    )
    pairs = [row for row in rows if len(row) == 2]
    yield from _first(
        f"row {number + 1} has the index {index!r}, not {number}"
        for number, (index, _) in enumerate(pairs)
        if index != str(number)
    )
    told = "a number from 0 to 5" if wanted.labels is None else f"one of {', '.join(wanted.labels)}"
    yield from _first(
        f"row {number + 1} predicts {value!r}, which is not {told}"
        for number, (_, value) in enumerate(pairs)
        if not _fits(value, wanted.labels)
    )


def _first(mistakes: Iterator[str]) -> Iterator[str]:
    """Yield the first of many mistakes of one kind, and how many follow."""
    first = next(mistakes, None)
    if first is not None:
        more = sum(1 for _ in mistakes)
        yield first + (f" (and {more:,} more rows)" if more else "")


def _fits(value: str, labels: tuple[str, ...] | None) -> bool:
    if labels is not None:
        return value in labels
    try:
        return math.isfinite(float(value)) and _SCORES[0] <= float(value) <= _SCORES[1]
    except ValueError:
        return False
