"""Writes the lines of a CSV file."""

import csv
from collections.abc import Iterable
from typing import IO


class _LineFeeds:
    """Takes the rows of a `csv.writer`, which end with CR LF, and writes them with LF alone."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, row: str) -> None:
        self._stream.write(f"{row[:-2]}\n")


def write_csv(stream: IO[str], rows: Iterable[Iterable[object]], delimiter: str = ",") -> None:
    """Write rows as lines that end with LF; a field with a line break of any kind is quoted.

    Before Python 3.11.9, `csv.writer` quotes only those line breaks that end its rows.
    """
    csv.writer(_LineFeeds(stream), delimiter=delimiter, lineterminator="\r\n").writerows(rows)
