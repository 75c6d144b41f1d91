"""Reads the lines of a UTF-8 stream with their numbers; lines can be given back, and none takes unbounded memory."""

from collections import deque
from typing import BinaryIO

from ftsys.data.sources.numbered_lines import LONGEST

MOST_AGAIN = 16
"""Times that a file may be read in all: a record that ends nowhere is read up to LONGEST, for each of its lines."""
_BOM = b"\xef\xbb\xbf"


class TooLong(ValueError):
    """A line or a record has more than LONGEST bytes."""


class Lines:
    """Iterates over decoded lines. `hold` begins a record; `back_to_second` gives its lines but the first one back.

    Iteration raises UnicodeDecodeError, a ValueError, for other encodings, and TooLong.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.number = 0
        """The number of the line that was read last, from 1."""
        self._held: list[bytes] = []
        self._size = 0
        self._again: deque[bytes] = deque()
        self._first_time, self._given_back = 0, 0  # bytes

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        raw = self._again.popleft() if self._again else self._next_raw()
        if not raw:
            raise StopIteration
        self.number += 1
        self._held.append(raw)
        self._size += len(raw)
        if self._size > LONGEST:
            raise TooLong(f"more than {LONGEST:,} bytes")
        return raw.decode("utf-8")

    def _next_raw(self) -> bytes:
        raw = self._stream.readline(LONGEST + 1)
        if self.number == 0 and raw.startswith(_BOM):
            raw = raw[len(_BOM) :]
        if len(raw) > LONGEST and not raw.endswith(b"\n"):
            self._skip_line()
        self._first_time += len(raw)
        return raw

    def _skip_line(self) -> None:
        while (rest := self._stream.readline(LONGEST)) and not rest.endswith(b"\n"):
            pass

    def hold(self) -> int:
        """Begin a record with the next line, whose number is returned."""
        self._held.clear()
        self._size = 0
        return self.number + 1

    @property
    def several(self) -> bool:
        """Return True if the record has more than one line so far."""
        return len(self._held) > 1

    def back_to_second(self) -> bool:
        """Read the record's lines once more, but not its first one; returns False if that was too often."""
        given_back = self._held[1:]
        self._given_back += sum(map(len, given_back))
        self._again.extendleft(reversed(given_back))
        self.number -= len(given_back)
        self.hold()
        return self._given_back <= MOST_AGAIN * (LONGEST + self._first_time)
