"""Every way to compute a run's step on given devices, what each needs and whether it fits; and the choice. Pure.

The choice asks for nothing that is not needed: no ZeRO, no recomputation and the usual micro-batch where they fit.
Where they do not, the fastest by prediction of those that fit and that the run's settings allow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launcher.planner.cost.activations import Device, MicroBatch, Precision
from launcher.planner.cost.communication import sent_per_rank
from launcher.planner.cost.memory import Memory, Setting, predicted_memory
from launcher.planner.cost.step_time import Links, predicted_seconds
from launcher.planner.gpus import GIB
from launcher.planner.model_shape import ModelShape

RESERVED = GIB * 3 // 4
"""Bytes of a GPU that no tensor gets: CUDA's context, the libraries' kernels and workspaces."""
HEADROOM = 1.1
"""Predictions are held to within a tenth of what is measured."""

OFFLOADS = ("none", "optimizer", "parameters")
Fit = Literal["yes", "tight", "no", "unknown"]


@dataclass(frozen=True)
class Work:
    """What a rank has to compute in a step, every example being as long as any may be."""

    shape: ModelShape
    length: int
    rank_tokens: int
    """Tokens of the fullest rank's share of a step."""
    micro_tokens: int
    """The usual micro-batch's tokens on this device."""

    def micro_batch(self, budget: int) -> MicroBatch:
        """The largest micro-batch that `budget` tokens allow."""
        tokens = max(self.length, min(budget, self.rank_tokens))
        return MicroBatch(tokens // self.length * self.length, self.length)

    def micro_batches(self, budget: int) -> int:
        """Micro-batches of a step."""
        return max(1, -(-self.rank_tokens // self.micro_batch(budget).tokens))


@dataclass(frozen=True)
class Place:
    """Where a step is computed; `memory` is a device's bytes, None where nobody knows them."""

    ranks: int
    device: Device
    memory: int | None = None
    links: Links | None = None


@dataclass(frozen=True)
class Asked:
    """What the run's settings allow, the preferred first."""

    stages: tuple[int, ...]
    precisions: tuple[Precision, ...]
    offload: str
    checkpointing: tuple[bool, ...]
    budgets: tuple[int, ...]
    """Micro-batches in tokens; empty: the usual one and its halves."""
    backend_without_zero: Literal["deepspeed", "ddp", "none"]
    kernel: str = "auto"
    optimizer: str = "adamw_torch_fused"


@dataclass(frozen=True)
class Candidate:
    """One way, and what is predicted of it."""

    setting: Setting
    micro_tokens: int
    """The budget; `batch` is what it makes of this run's examples."""
    batch: MicroBatch
    micro_batches: int
    memory: Memory
    sent: int
    """Bytes that one rank sends in a step."""
    seconds: float | None
    """Of a step; None where the GPU is not known."""
    fits: Fit
    allowed: bool
    """Whether the run's settings allow it."""

    @property
    def plain(self) -> bool:
        """Whether it asks for nothing special."""
        setting = self.setting
        return setting.zero_stage == 0 and setting.offload == "none" and not setting.checkpointing

    @property
    def effort(self) -> tuple[int, int, bool, int]:
        """How much it asks for, to be compared: offload, ZeRO stage, recomputation, small micro-batches."""
        outside = OFFLOADS.index(self.setting.offload) if self.setting.offload in OFFLOADS else len(OFFLOADS)
        return outside, self.setting.zero_stage, self.setting.checkpointing, -self.batch.tokens


def all_candidates(work: Work, place: Place, asked: Asked, precisions: Sequence[Precision]) -> list[Candidate]:
    """Every combination that works at all, allowed or not; `precisions` are those that the device can compute."""
    found = []
    for stage, offload in _engines(asked.offload):
        backend: Any = "deepspeed" if stage else asked.backend_without_zero
        for precision in precisions:
            for checkpointing in (False, True) if work.shape.recomputable else (False,):
                setting = Setting(
                    backend, stage, precision, offload, checkpointing, place.ranks, place.device,
                    asked.kernel, asked.optimizer,
                )  # fmt: skip
                for budget in asked.budgets or tuple(_budgets(work)):
                    found.append(_candidate(work, place, asked, setting, budget))
    return found


def _engines(asked_offload: str) -> Iterator[tuple[int, str]]:
    """ZeRO stages with the offloads that work with them; a disk only where the run names one."""
    yield from ((stage, "none") for stage in range(4))
    yield from ((stage, "optimizer") for stage in (1, 2, 3))
    yield 3, "parameters"
    if asked_offload.startswith("nvme:"):
        yield 3, asked_offload


def _budgets(work: Work) -> Iterator[int]:
    """The usual micro-batch, then half of the last one for as long as an example fits and it makes a difference."""
    budget, seen = work.micro_tokens, 0
    while True:
        tokens = work.micro_batch(budget).tokens
        if tokens != seen:
            yield budget
        seen = tokens
        if tokens <= work.length:
            return
        budget = max(work.length, min(budget, tokens) // 2)


def _candidate(work: Work, place: Place, asked: Asked, setting: Setting, budget: int) -> Candidate:
    batch, count = work.micro_batch(budget), work.micro_batches(budget)
    memory = predicted_memory(work.shape, batch, count, setting)
    seconds = None
    if place.links is not None:
        seconds = predicted_seconds(work.shape, batch, count, setting, place.links)
    allowed = (
        setting.zero_stage in asked.stages
        and setting.precision in asked.precisions
        and setting.offload == asked.offload
        and setting.checkpointing in asked.checkpointing
    )
    sent = sent_per_rank(work.shape, setting, count) if setting.ranks > 1 else 0
    return Candidate(setting, budget, batch, count, memory, sent, seconds, _fits(memory, place.memory), allowed)


def _fits(memory: Memory, available: int | None) -> Fit:
    if available is None:
        return "unknown"
    if memory.total * HEADROOM + RESERVED <= available:
        return "yes"
    return "tight" if memory.total + RESERVED <= available else "no"


def choose(candidates: Sequence[Candidate], asked: Asked) -> Candidate | None:
    """The candidate to take among those that the run's settings allow; None where none of them fits.

    The preferred precision first; of it what asks for nothing special and fits, at the largest micro-batch; else the
    fastest that fits; one that fits only without headroom last.
    """
    allowed = [candidate for candidate in candidates if candidate.allowed and candidate.fits != "no"]
    usual = max((candidate.micro_tokens for candidate in candidates), default=0)

    def order(candidate: Candidate) -> tuple[Any, ...]:
        return (
            candidate.fits == "tight",
            asked.precisions.index(candidate.setting.precision),
            not (candidate.plain and candidate.micro_tokens == usual),
            candidate.seconds or 0.0,
            candidate.effort,
        )

    return min(allowed, key=order, default=None)
