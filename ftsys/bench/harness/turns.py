"""Implements a peer's side of a measurement: wait for an order, run a block, answer with its figures."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

GO = "go"


class Finished(Exception):
    """Raised inside a training loop to leave it, because there are no more blocks."""


class Channel(Protocol):
    """Receives orders and sends answers."""

    def turn(self) -> bool:
        """Wait for an order; False means that there are no more blocks."""

    def answer(self, figures: Mapping[str, Any]) -> None:
        """Send the figures of a block."""


class Pipe:
    """Reads orders from standard input and writes answers to the original standard output.

    Text that libraries print goes to standard error.
    """

    def __init__(self) -> None:
        """Redirect standard output to standard error; call it once per process."""
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def turn(self) -> bool:
        """Read a line: "go" means another block; any other line, or the end of input, means no more blocks."""
        return sys.stdin.readline().strip() == GO

    def answer(self, figures: Mapping[str, Any]) -> None:
        """Write one line of JSON."""
        self._answers.write(json.dumps(figures) + "\n")
        self._answers.flush()


class Turns:
    """Cuts a training loop into blocks of `steps` optimizer steps, and of `seconds` at least, each run on an order.

    A block lasts from the start of its first step to the start of the step after its last, so that it contains as many
    data fetches as steps. `done` returns (real tokens, examples) so far; `wait` waits for the device.
    """

    def __init__(
        self,
        channel: Channel,
        steps: int,
        done: Callable[[], tuple[int, int]],
        wait: Callable[[], None],
        seconds: float = 0.0,
    ) -> None:
        self._channel, self._steps, self._done, self._wait, self._seconds = channel, steps, done, wait, seconds
        self._taken = 0
        self._start: tuple[float, float, tuple[int, int]] | None = None

    def begin_step(self) -> None:
        """Mark the start of an optimizer step; waits for an order between blocks. Raises Finished."""
        if self._is_over():
            self._answer()
            if not self._channel.turn():
                raise Finished
            self._taken, self._start = 0, (time.perf_counter(), time.process_time(), self._done())
        self._taken += 1

    def _is_over(self) -> bool:
        if self._start is None:
            return True
        return self._taken >= self._steps and time.perf_counter() - self._start[0] >= self._seconds

    def _answer(self) -> None:
        if self._start is None:
            return
        self._wait()
        seconds, cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        tokens, examples = (now - then for now, then in zip(self._done(), self._start[2], strict=True))
        self._channel.answer(block_figures(seconds, tokens, examples, self._taken) | {"cpu_seconds": cpu})


def block_figures(seconds: float, tokens: int, examples: int, steps: int) -> dict[str, float]:
    """Return the figures of a block, with this process's peak memory so far in bytes."""
    return {"seconds": seconds, "tokens": tokens, "examples": examples, "steps": steps, "memory": peak_memory()}


def peak_memory() -> int:
    """Return the GPU's peak allocation, or this process's peak resident size where there is no GPU, in bytes.

    The resident size is the kernel's VmHWM: getrusage's value is inherited from the parent process.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
