"""What `ftlaunch` and the part of it that runs on each node say to each other: JSON objects, a line each. Pure.

Orders go down the node's standard input. Words come up a pipe of their own, or, where only ssh or srun lie between, on
standard error among what rank 0 writes there; a mark tells them apart.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]

MARK = b"\x1eftlaunch\x1f"
"""Begins a word: control characters that no log and no progress bar writes."""


def order(**fields: object) -> bytes:
    """An order for a node."""
    return json.dumps(fields).encode() + b"\n"


def word(**fields: object) -> bytes:
    """A word from a node."""
    return MARK + json.dumps(fields).encode() + b"\n"


class Orders:
    """Orders from a stream of bytes that arrives in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Message]:
        """The orders that are complete by now."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)


class Words:
    """Words, and the bytes around them that are not for `ftlaunch`, from a stream that arrives in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Message | bytes]:
        """Words as objects, everything else as bytes, in their order; an unfinished word waits for its end."""
        self._rest += piece
        while True:
            before, mark, after = self._rest.partition(MARK)
            line, end, rest = after.partition(b"\n")
            if not mark:
                kept = _begun_mark(before)
                self._rest = before[len(before) - kept :]
                before = before[: len(before) - kept]
            if before:
                yield before
            if not mark:
                return
            if not end:
                self._rest = mark + after
                return
            self._rest = rest
            yield json.loads(line)

    def end(self) -> bytes:
        """What is left when the stream ends."""
        rest, self._rest = self._rest, b""
        return rest


def _begun_mark(text: bytes) -> int:
    """How many bytes at the end of the text may be the beginning of a mark."""
    return next((size for size in range(len(MARK) - 1, 0, -1) if text.endswith(MARK[:size])), 0)


AGENT = "FTLAUNCH_AGENT"
"""Name of the environment variable with the name of the agent's socket."""


LONGEST_MESSAGE = 1 << 16


def write_all(handle: int, data: bytes) -> None:
    """Write every byte. Raises OSError."""
    while data:
        data = data[os.write(handle, data) :]
