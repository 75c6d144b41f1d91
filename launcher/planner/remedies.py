"""Explains that no allowed way to compute a step fits the GPU, and searches for changes that would make it fit."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from launcher.planner.candidates import RESERVED, Candidate, Constraints, Hardware, Work, all_candidates, choose
from launcher.planner.gpus import GIB, GPUS, gib

MOST_RANKS = 4096
"""Upper limit of the search for a number of GPUs that is enough."""


def why_nothing_fits(work: Work, hardware: Hardware, constraints: Constraints, candidates: Sequence[Candidate]) -> str:
    """Return the error message where nothing fits: the missing memory, and the changes that would make one fit."""
    allowed = [candidate for candidate in candidates if candidate.allowed]
    if not allowed:
        return "the engine's settings exclude each other: no ZeRO stage, precision and offload are left."
    least, available = min(allowed, key=lambda candidate: candidate.memory.total), hardware.memory or 0
    needed = least.memory.total + RESERVED
    text = (
        f"no setting that the run allows fits the GPU's {gib(available)} GiB. The smallest ({_described(least)}) needs "
        f"{gib(needed)} GiB, {gib(needed - available)} GiB too much."
    )
    ways = list(_ways_out(work, hardware, constraints, candidates, needed))
    return f"{text} What would make it fit: {'; '.join(ways)}." if ways else text


def _ways_out(
    work: Work, hardware: Hardware, constraints: Constraints, candidates: Sequence[Candidate], needed: int
) -> Iterator[str]:
    other = [candidate for candidate in candidates if not candidate.allowed and candidate.fits == "yes"]
    other = other or [c for c in all_candidates(work, hardware, constraints, constraints.precisions) if c.fits == "yes"]
    if other:
        simplest = min(other, key=lambda candidate: candidate.effort)
        yield f"other settings ({_described(simplest)})"
    more = _enough_ranks(work, hardware, constraints)
    if more is not None:
        yield f"{more} GPUs of this size instead of {hardware.ranks}"
    bigger = [gpu for gpu in GPUS.values() if gpu.memory >= needed]
    if bigger:
        yield f"a GPU of {math.ceil(needed / GIB)} GiB, such as {min(bigger, key=lambda gpu: gpu.memory).name}"
    shorter = _short_enough(work, hardware, constraints)
    if shorter is not None:
        yield f"data.max_length = {shorter}"


def _fits_somewhere(work: Work, hardware: Hardware, constraints: Constraints) -> bool:
    return choose(all_candidates(work, hardware, constraints, constraints.precisions), constraints) is not None


def _enough_ranks(work: Work, hardware: Hardware, constraints: Constraints) -> int | None:
    """Double the ranks until a candidate fits; None where ranks would have no example, or above MOST_RANKS."""
    if constraints.backend_of_several == "none":
        return None
    several, ranks = replace(constraints, backend_without_zero=constraints.backend_of_several), hardware.ranks * 2
    while ranks <= MOST_RANKS:
        share = replace(work, rank_tokens=max(work.length, work.rank_tokens * hardware.ranks // ranks))
        if work.rank_tokens * hardware.ranks < ranks * work.length:
            return None
        if _fits_somewhere(share, replace(hardware, ranks=ranks), several):
            return ranks
        ranks *= 2
    return None


def _short_enough(work: Work, hardware: Hardware, constraints: Constraints) -> int | None:
    """Halve data.max_length until a candidate fits; None below 8 tokens."""
    length = work.length // 2
    while length >= 8:
        share = replace(work, length=length, rank_tokens=work.rank_tokens * length // work.length)
        if _fits_somewhere(share, hardware, replace(constraints, budgets=())):
            return length
        length //= 2
    return None


def _described(candidate: Candidate) -> str:
    """Describe a candidate's settings in words."""
    setting = candidate.setting
    words = [f"ZeRO {setting.zero_stage}"]
    if setting.offload != "none":
        words.append(f"offload {setting.offload}")
    if setting.checkpointing:
        words.append("activations recomputed")
    return ", ".join([*words, setting.precision, f"micro-batches of {candidate.batch.tokens:,} tokens"])
