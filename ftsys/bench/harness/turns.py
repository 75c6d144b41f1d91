"""A peer's side of a measurement: it waits for its turn, works through a block, and answers with what that took."""

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
    """There are no more turns: the peer leaves its loop, wherever that is."""


class Channel(Protocol):
    """Where orders come from and answers go."""

    def turn(self) -> bool:
        """Wait for an order; False: leave."""

    def answer(self, figures: Mapping[str, Any]) -> None:
        """Hand over what a block took."""


class Pipe:
    """Orders on standard input, answers on what was standard output: what libraries print goes to standard error."""

    def __init__(self) -> None:
        """Take standard output over; once a process."""
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def turn(self) -> bool:
        """A line "go" means another block; anything else, the end of the input included, means leave."""
        return sys.stdin.readline().strip() == GO

    def answer(self, figures: Mapping[str, Any]) -> None:
        """One line of JSON."""
        self._answers.write(json.dumps(figures) + "\n")
        self._answers.flush()


class Turns:
    """Cuts a training loop into blocks of `steps` optimizer steps, each worked through when it is this peer's turn.

    A block lasts from the moment a step begins to the moment the step after its last one would begin, so that it holds
    as many fetches of data as steps. `done` returns (real tokens, examples) so far; `wait` waits for the device.
    """

    def __init__(
        self, channel: Channel, steps: int, done: Callable[[], tuple[int, int]], wait: Callable[[], None]
    ) -> None:
        self._channel, self._steps, self._done, self._wait = channel, steps, done, wait
        self._left = 0
        self._start: tuple[float, tuple[int, int]] | None = None

    def begin_step(self) -> None:
        """To be called whenever an optimizer step begins. Raises Finished."""
        if self._left == 0:
            self._answer()
            if not self._channel.turn():
                raise Finished
            self._left, self._start = self._steps, (time.perf_counter(), self._done())
        self._left -= 1

    def _answer(self) -> None:
        if self._start is None:
            return
        self._wait()
        seconds = time.perf_counter() - self._start[0]
        tokens, examples = (now - then for now, then in zip(self._done(), self._start[1], strict=True))
        self._channel.answer(block_figures(seconds, tokens, examples, self._steps))


def block_figures(seconds: float, tokens: int, examples: int, steps: int) -> dict[str, float]:
    """What a block took, and this process's peak memory so far, in bytes."""
    return {"seconds": seconds, "tokens": tokens, "examples": examples, "steps": steps, "memory": peak_memory()}


def peak_memory() -> int:
    """Bytes: the GPU's peak allocation, or the peak resident size of this process where there is none.

    The kernel's VmHWM, not getrusage: its figure is inherited from the process that started this one.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
