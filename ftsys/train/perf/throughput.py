"""Measures a run's throughput in real tokens per second; padding and filler tokens do not count."""

import resource
import time

import torch

from ftsys.data.batching.loader import LocalBatch

MOST_HISTORY = 1024
"""Entries of a rank's history; beyond them every other one is dropped, so that a long run needs no more memory."""


class Meter:
    """Sums up the steps between two log lines.

    The figures are those of all ranks, because each rank's `LocalBatch` has the totals of its whole step.
    """

    def __init__(self) -> None:
        self.total_tokens = 0
        self.total_examples = 0
        self.computed_tokens = 0
        self.own_tokens = 0
        self.steps = 0
        self.history: list[tuple[int, int, int]] = []
        """At each log line: steps so far, this rank's real tokens since the last line, its peak memory in bytes."""
        self._since_log()

    def _since_log(self) -> None:
        self._start: float | None = None
        self._tokens, self._imbalance, self._steps = 0, 0.0, 0
        self._own_before, self._computed_before = self.own_tokens, self.computed_tokens

    def begin_step(self) -> None:
        """Start the clock at the first step after a log line: the time in between is not training."""
        if self._start is None:
            self._start = time.perf_counter()

    def pause(self, seconds: float) -> None:
        """Exclude `seconds` of an evaluation from the rate."""
        if self._start is not None:
            self._start += seconds

    def add(self, local_batch: LocalBatch, own_tokens: int) -> None:
        """Count one step; `own_tokens` is the number of real tokens of this rank."""
        self._tokens += local_batch.step_tokens
        self._imbalance += local_batch.imbalance
        self._steps += 1
        self.steps += 1
        self.total_tokens += local_batch.step_tokens
        self.total_examples += local_batch.step_examples
        self.own_tokens += own_tokens
        self.computed_tokens += sum(batch.computed_tokens for batch in local_batch.micro_batches)

    def drain(self) -> dict[str, float]:
        """Return and reset the figures of the steps since the last log line.

        They are tokens per second, fraction of padding, mean imbalance of the ranks, and peak memory in bytes.
        """
        now = time.perf_counter()
        seconds = max(now - (now if self._start is None else self._start), 1e-9)
        own, computed = self.own_tokens - self._own_before, self.computed_tokens - self._computed_before
        memory = peak_memory_bytes()
        if len(self.history) == MOST_HISTORY:
            del self.history[::2]
        self.history.append((self.steps, own, memory))
        figures = {
            "real_tokens_per_s": self._tokens / seconds,
            "padding_fraction": _padding(own, computed),
            "rank_imbalance": self._imbalance / max(self._steps, 1),
            "memory_bytes": float(memory),
        }
        self._since_log()
        return figures

    @property
    def padding_fraction(self) -> float:
        """Return the fraction of this rank's computed tokens that belong to no example."""
        return _padding(self.own_tokens, self.computed_tokens)


def _padding(own_tokens: int, computed_tokens: int) -> float:
    return 1.0 - own_tokens / computed_tokens if computed_tokens else 0.0


def peak_memory_bytes() -> int:
    """Return the GPU's peak allocation, or this process's peak resident set size if there is no GPU, in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
