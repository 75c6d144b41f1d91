"""Lists every way to compute a run's step on given devices, predicts its cost, and chooses one. Pure.

The plain way (no ZeRO, no offload, no recomputation, the default micro-batch) is taken where it fits. Otherwise the
choice is the candidate with the shortest predicted time among those that fit and that the run's settings allow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launcher.planner.cost.activations import Device, MicroBatch, Precision
from launcher.planner.cost.communication import sent_per_rank
from launcher.planner.cost.memory import Memory, Setting, predicted_memory
from launcher.planner.cost.step_time import Links, StepTime, step_time
from launcher.planner.gpus import GIB
from launcher.planner.model_shape import ModelShape

RESERVED = GIB * 3 // 4
"""Bytes of a GPU that tensors cannot use: the CUDA context, the libraries' kernels and workspaces."""
HEADROOM = 1.1
"""Factor on predicted bytes: `ftsys bench memory` allows predictions to be off by a tenth."""

OFFLOADS = ("none", "optimizer", "parameters")
Fit = Literal["yes", "tight", "no", "unknown"]


@dataclass(frozen=True)
class Work:
    """The work of one rank in a step, with every example as long as the limit allows."""

    shape: ModelShape
    length: int
    rank_tokens: int
    """Tokens of the rank with the most examples."""
    micro_tokens: int
    """Tokens of the default micro-batch on this device."""

    def micro_batch(self, budget: int) -> MicroBatch:
        """Return the largest micro-batch within `budget` tokens; at least one example."""
        tokens = max(self.length, min(budget, self.rank_tokens))
        return MicroBatch(tokens // self.length * self.length, self.length)

    def micro_batches(self, budget: int) -> int:
        """Count the micro-batches of a step."""
        return max(1, -(-self.rank_tokens // self.micro_batch(budget).tokens))


@dataclass(frozen=True)
class Hardware:
    """The devices that compute a step; `memory` is the bytes of one device, None where it is not known."""

    ranks: int
    device: Device
    memory: int | None = None
    links: Links | None = None


@dataclass(frozen=True)
class Constraints:
    """The values that the run's settings allow, the preferred value first."""

    stages: tuple[int, ...]
    precisions: tuple[Precision, ...]
    offload: str
    checkpointing: tuple[bool, ...]
    budgets: tuple[int, ...]
    """Micro-batches in tokens; empty: the default one and its halves."""
    backend_without_zero: Literal["deepspeed", "ddp", "none"]
    kernel: str = "auto"
    optimizer: str = "adamw_torch_fused"
    backend_of_several: Literal["deepspeed", "ddp", "none"] = "ddp"
    """Without ZeRO on several ranks; "none" where the run allows no second rank."""
    possible_stages: tuple[int, ...] = (0, 1, 2, 3)
    """ZeRO stages that the run could ask for."""


@dataclass(frozen=True)
class Candidate:
    """One way to compute a step, and its predicted cost."""

    setting: Setting
    micro_tokens: int
    """Upper limit of tokens in a micro-batch; `batch` is the largest micro-batch of whole examples within it."""
    batch: MicroBatch
    micro_batches: int
    memory: Memory
    sent: int
    """Bytes that one rank sends in a step."""
    time: StepTime | None
    """Predicted times of a step; None where the GPU is not known."""
    fits: Fit
    allowed: bool
    """True where the run's settings allow it."""

    @property
    def seconds(self) -> float | None:
        """Return the predicted seconds of a step without CUDA graphs; None where the GPU is not known."""
        return None if self.time is None else self.time.seconds()

    @property
    def plain(self) -> bool:
        """Return True for ZeRO 0 without offload and without recomputation."""
        setting = self.setting
        return setting.zero_stage == 0 and setting.offload == "none" and not setting.checkpointing

    @property
    def effort(self) -> tuple[int, int, bool, int]:
        """Return a sort key, larger for more: offload, ZeRO stage, recomputation, smaller micro-batches."""
        outside = OFFLOADS.index(self.setting.offload) if self.setting.offload in OFFLOADS else len(OFFLOADS)
        return outside, self.setting.zero_stage, self.setting.checkpointing, -self.batch.tokens


def all_candidates(
    work: Work, hardware: Hardware, constraints: Constraints, precisions: Sequence[Precision]
) -> list[Candidate]:
    """Return every combination that can work, allowed or not, in the given `precisions`."""
    found = []
    for stage, offload in _engines(constraints):
        backend: Any = "deepspeed" if stage else constraints.backend_without_zero
        for precision in precisions:
            for checkpointing in (False, True) if work.shape.recomputable else (False,):
                setting = Setting(
                    backend, stage, precision, offload, checkpointing, hardware.ranks, hardware.device,
                    constraints.kernel, constraints.optimizer,
                )  # fmt: skip
                for budget in constraints.budgets or tuple(_budgets(work)):
                    found.append(_candidate(work, hardware, constraints, setting, budget))
    return found


def _engines(constraints: Constraints) -> Iterator[tuple[int, str]]:
    """Yield ZeRO stages of the run with the offloads that work with them; NVMe only where the run names a folder."""
    stages = sorted({*constraints.stages, *constraints.possible_stages})
    yield from ((stage, "none") for stage in stages)
    yield from ((stage, "optimizer") for stage in stages if stage)
    if 3 in stages:
        yield 3, "parameters"
        if constraints.offload.startswith("nvme:"):
            yield 3, constraints.offload


def _budgets(work: Work) -> Iterator[int]:
    """Yield the default budget, then halves of it down to one example; skips budgets that give the same micro-batch."""
    budget, seen = work.micro_tokens, 0
    while True:
        tokens = work.micro_batch(budget).tokens
        if tokens != seen:
            yield budget
        seen = tokens
        if tokens <= work.length:
            return
        budget = max(work.length, min(budget, tokens) // 2)


def _candidate(work: Work, hardware: Hardware, constraints: Constraints, setting: Setting, budget: int) -> Candidate:
    batch, count = work.micro_batch(budget), work.micro_batches(budget)
    memory = predicted_memory(work.shape, batch, count, setting)
    links = hardware.links
    time = None if links is None else step_time(work.shape, batch, count, setting, links)
    allowed = (
        setting.zero_stage in constraints.stages
        and setting.precision in constraints.precisions
        and setting.offload == constraints.offload
        and setting.checkpointing in constraints.checkpointing
    )
    sent = sent_per_rank(work.shape, setting, count) if setting.ranks > 1 else 0
    return Candidate(setting, budget, batch, count, memory, sent, time, _fits(memory, hardware.memory), allowed)


def _fits(memory: Memory, available: int | None) -> Fit:
    if available is None:
        return "unknown"
    if memory.total * HEADROOM + RESERVED <= available:
        return "yes"
    return "tight" if memory.total + RESERVED <= available else "no"


def choose(candidates: Sequence[Candidate], constraints: Constraints) -> Candidate | None:
    """Return the candidate to take among those that the run's settings allow; None where none of them fits.

    Order of preference: fits with headroom; the preferred precision; plain with the default micro-batch; the shortest
    predicted time; the least effort.
    """
    allowed = [candidate for candidate in candidates if candidate.allowed and candidate.fits != "no"]
    usual = max((candidate.micro_tokens for candidate in candidates), default=0)

    def order(candidate: Candidate) -> tuple[Any, ...]:
        return (
            candidate.fits == "tight",
            constraints.precisions.index(candidate.setting.precision),
            not (candidate.plain and candidate.micro_tokens == usual),
            candidate.seconds or 0.0,
            candidate.effort,
        )

    return min(allowed, key=order, default=None)
