"""Encodes and decodes the messages between the controller (`ftlaunch`) and its agents: JSON objects, one a line.

Orders go to an agent's standard input. `kind` and the other fields:

    preflight   node, environment, cpu, ranks, files, port, job, silence
    start       launch (see `LaunchSpec`), hosts
    signal      name
    leave       now
    heartbeat

Reports come back up a pipe of their own, or, over ssh and srun, on standard error among what rank 0 writes there; a
mark tells them apart. Each also has `node` (its number) and `host`:

    ready       port, gpus, bf16, threads
    refused     reason
    rank_exit   rank, status
    agent_exit  status, ranks, reason
    heartbeat
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from typing_extensions import TypedDict

Message = dict[str, Any]

MARK = b"\x1eftlaunch\x1f"
"""Begins a report: control characters that no log and no progress bar writes."""

AGENT_SOCKET = "FTLAUNCH_AGENT"
"""Name of the environment variable with the name of the agent's socket, for the processes around the ranks."""

MAX_MESSAGE_BYTES = 1 << 16
"""Size limit of a message between an agent and the process around a rank."""


class _Heartbeat(TypedDict):
    node: int
    host: str


class _Ready(_Heartbeat):
    port: int | None
    gpus: list[str]
    bf16: bool
    threads: str


class _Refused(_Heartbeat):
    reason: str


class _RankExit(_Heartbeat):
    rank: int
    status: int


class _AgentExit(_Heartbeat):
    status: int | None
    ranks: int
    reason: str


_KINDS: dict[str, Any] = {
    "ready": _Ready,
    "refused": _Refused,
    "rank_exit": _RankExit,
    "agent_exit": _AgentExit,
    "heartbeat": _Heartbeat,
}
"""The fields of each kind of report."""


def encode_order(kind: str, **fields: object) -> bytes:
    """Return the bytes of an order."""
    return json.dumps({"kind": kind, **fields}).encode() + b"\n"


def encode_report(kind: str, **fields: object) -> bytes:
    """Return the bytes of a report."""
    return MARK + json.dumps({"kind": kind, **fields}).encode() + b"\n"


class OrderReader:
    """Reads orders from a stream of bytes that arrives in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Message]:
        """Yield the orders that are complete by now."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)


class ReportReader:
    """Separates reports from all other bytes of a stream that arrives in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Message | bytes]:
        """Yield reports as objects and everything else as bytes, in their order. An unfinished report waits."""
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
            if not end and len(after) <= MAX_MESSAGE_BYTES:
                self._rest = mark + after
                return
            if not end:  # a rank wrote the mark: no report is as long
                self._rest = b""
                yield mark + after
                return
            self._rest = rest
            yield _report(mark + line + end)

    def end(self) -> bytes:
        """Return what is left when the stream ends."""
        rest, self._rest = self._rest, b""
        return rest


def _report(line: bytes) -> bytes | Message:
    """Return the report of a line; the line itself where other output is mixed into it, as srun may do.

    Over ssh and srun a rank may write anything after a mark, so the fields are checked.
    """
    from ftsys.files.untrusted import json_object, typed  # slow to import for agents, which read no reports

    try:
        report = json_object(line.removeprefix(MARK))
        typed(_KINDS[str(report.get("kind"))], report)
    except (KeyError, ValueError):
        return line
    return report


def _begun_mark(text: bytes) -> int:
    """Return how many bytes at the end of the text may be the beginning of a mark."""
    return next((size for size in range(len(MARK) - 1, 0, -1) if text.endswith(MARK[:size])), 0)


def write_all(handle: int, data: bytes) -> None:
    """Write every byte to an open file. Raises OSError."""
    while data:
        data = data[os.write(handle, data) :]
