"""What a run does per second, in real tokens: padding and fillers never count."""

import resource
import time

import torch

from ftsys.data.batching.loader import Share


class Meter:
    """Collects shares between two log lines; figures are of all ranks, since a share knows its whole step."""

    def __init__(self) -> None:
        self.total_tokens = 0
        self.total_examples = 0
        self.computed_tokens = 0
        self.own_tokens = 0
        self._since_log()

    def _since_log(self) -> None:
        self._start: float | None = None
        self._tokens, self._imbalance, self._steps = 0, 0.0, 0

    def begin_step(self) -> None:
        """Start the clock with the first step after a log line: what lay between is no training."""
        if self._start is None:
            self._start = time.perf_counter()

    def pause(self, seconds: float) -> None:
        """Leave `seconds` that went into an evaluation out of the rate."""
        if self._start is not None:
            self._start += seconds

    def add(self, share: Share, own_tokens: int) -> None:
        """Count one step; `own_tokens` are this rank's real ones."""
        self._tokens += share.step_tokens
        self._imbalance += share.imbalance
        self._steps += 1
        self.total_tokens += share.step_tokens
        self.total_examples += share.step_examples
        self.own_tokens += own_tokens
        self.computed_tokens += sum(batch.computed_tokens for batch in share.micro_batches)

    def drain(self) -> dict[str, float]:
        """Figures since the last call: tokens a second, mean imbalance of the ranks, peak memory in bytes."""
        now = time.perf_counter()
        seconds = max(now - (now if self._start is None else self._start), 1e-9)
        figures = {
            "real_tokens_per_s": self._tokens / seconds,
            "rank_imbalance": self._imbalance / max(self._steps, 1),
            "memory_bytes": float(peak_memory_bytes()),
        }
        self._since_log()
        return figures

    @property
    def padding_fraction(self) -> float:
        """Share of this rank's computed tokens that were no example's."""
        return 1.0 - self.own_tokens / self.computed_tokens if self.computed_tokens else 0.0


def peak_memory_bytes() -> int:
    """The device's peak allocation, or this process's peak resident size where there is no GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
