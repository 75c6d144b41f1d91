"""Controls the peers: one process each, with interleaved blocks, so that a drift of the machine affects all alike."""

import json
import os
import select
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ftsys.bench.harness.turns import GO
from ftsys.console.child_python import python_command
from ftsys.errors import ConfigError

START_SECONDS = 600.0
"""Time limit until a peer is ready."""
BLOCK_SECONDS = 1800.0
"""Time limit of a block."""
LEAVE_SECONDS = 30.0
"""Time limit for a peer to exit after its last block."""
PROGRAM = tuple(python_command("-m", "ftsys.bench.harness.worker"))

Figures = dict[str, Any]


class PeerFailed(RuntimeError):
    """A peer's process ended or hung; the message has the end of its output."""


class Blocks(Protocol):
    """A peer, or a group of ranks, that can run a block."""

    def block(self) -> Figures:
        """Run one block; returns its figures, among them "seconds"."""


class Worker:
    """Controls one peer's process. `ready` has the facts that the peer sent once it was ready."""

    def __init__(
        self,
        spec: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """Start the process; `spec` is its last argument. Its standard error goes to `log`."""
        self._log = log
        self.ready: Figures = {}
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                [*program, spec],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                bufsize=0,
                env={**os.environ, **(environment or {})},
            )

    def wait_until_ready(self) -> None:
        """Wait for the facts. Raises PeerFailed, or ConfigError with the peer's own message for wrong input."""
        self.ready = self.receive(START_SECONDS)

    def send(self) -> None:
        """Tell the peer to run a block."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{GO}\n".encode())
        except OSError as error:
            raise self._failure("ended before its turn") from error

    def receive(self, seconds: float = BLOCK_SECONDS) -> Figures:
        """Wait for the peer's next answer. Raises PeerFailed, or ConfigError for wrong input."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise self._failure(f"has said nothing for {seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._failure("ended without an answer")
        figures: Figures = json.loads(line)
        if "wrong_input" in figures:
            raise ConfigError(figures["wrong_input"])
        return figures

    def block(self) -> Figures:
        """Run one block."""
        self.send()
        return self.receive()

    def dismiss(self) -> None:
        """Tell the peer that there are no more blocks."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self, seconds: float = LEAVE_SECONDS) -> None:
        """Let the peer exit within `seconds`, else kill it."""
        self.dismiss()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _failure(self, what: str) -> PeerFailed:
        self._process.kill()
        status = self._process.wait()
        end = self._log.read_text(encoding="utf-8", errors="replace")[-3000:]
        return PeerFailed(f"{self._log.stem} {what} (exit status {status}):\n{end}")


class Ranks:
    """Runs blocks on several ranks at once; a block lasts as long as its slowest rank."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers

    def block(self) -> Figures:
        """Run one block. Tokens, examples and steps are totals, sent by rank 0; memory is the largest of any rank."""
        for worker in self.workers:
            worker.send()
        found = [worker.receive() for worker in self.workers]
        slowest = {name: max(figures[name] for figures in found) for name in ("seconds", "memory")}
        return {**found[0], **slowest}


class Crew:
    """Starts the processes of a measurement one by one, and ends them together."""

    def __init__(self, work: Path) -> None:
        """Start without processes; logs go to `work`."""
        self._work = work
        self._workers: list[Worker] = []

    def add(self, name: str, spec: str, environment: Mapping[str, str] | None = None) -> Worker:
        """Start a peer, without waiting until it is ready."""
        self._work.mkdir(parents=True, exist_ok=True)
        worker = Worker(spec, self._work / f"{name}.log", environment)
        self._workers.append(worker)
        return worker

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:  # all of them first: ranks wait for each other
            worker.dismiss()
        for worker in self._workers:
            worker.close(LEAVE_SECONDS if error is None else 0.0)


def in_turns(
    peers: Mapping[str, Blocks], repeats: int, warm_up: int = 1, tell: Callable[[str], object] = lambda line: None
) -> dict[str, list[Figures]]:
    """Run `repeats` rounds of one block per peer; each round starts with another peer.

    The first `warm_up` rounds are run and dropped.
    """
    names = list(peers)
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for turn in range(warm_up + repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            figures = peers[name].block()
            if turn >= warm_up:
                found[name].append(figures)
        took = ", ".join(f"{name} {found[name][-1]['seconds']:.1f} s" for name in names if found[name])
        tell(f"round {turn + 1} of {warm_up + repeats}: {took or 'warm-up'}")
    return found
