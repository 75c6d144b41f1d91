"""Searches the candidates of a run's step for the one to take; where none fits, says what would make one fit. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftsys.config import RunConfig, lowest_stage
from ftsys.errors import ConfigError
from launcher.planner.candidates import RESERVED, Asked, Candidate, Place, Work, all_candidates, choose
from launcher.planner.choices import usual_micro_tokens
from launcher.planner.cost.activations import Precision
from launcher.planner.cost.step_time import Links
from launcher.planner.gpus import GIB, GPUS
from launcher.planner.model_shape import ModelShape, not_recomputable
from launcher.planner.world import World

MOST_RANKS = 4096
"""Upper limit of the search for a number of GPUs that is enough."""


@dataclass(frozen=True)
class Fitting:
    """The candidates of a run's step, and the chosen one."""

    work: Work
    place: Place
    candidates: tuple[Candidate, ...]
    chosen: Candidate


def fitting(
    run: RunConfig, world: World, shape: ModelShape, settled: Mapping[str, Any], everything: bool = False
) -> Fitting:
    """Choose how to compute a step of `shape`; `settled` comes from the user's own DeepSpeed file.

    With `everything` the result also has the candidates that the run's settings rule out, for a table. Raises
    ConfigError where no allowed candidate fits, with the missing memory and the changes that would make one fit.
    """
    work, place = work_of(run, world, shape), place_of(world)
    asked = asked_of(run, world, settled)
    if not shape.recomputable:
        if run.engine.activation_checkpointing is True:
            raise ConfigError(not_recomputable(shape.family))
        asked = replace(asked, checkpointing=(False,))
    precisions = _precisions(world) if everything else asked.precisions
    candidates = all_candidates(work, place, asked, precisions)
    chosen = choose(candidates, asked)
    if chosen is None:
        raise ConfigError(_nowhere(run, work, place, asked, candidates))
    kept = candidates if everything else [candidate for candidate in candidates if candidate.allowed]
    return Fitting(work, place, tuple(kept), chosen)


def work_of(run: RunConfig, world: World, shape: ModelShape) -> Work:
    """Return the work of one rank in a step, with every example as long as the run and the model allow."""
    length = min(run.data.max_length, shape.longest or run.data.max_length)
    if run.batch.global_size is not None:
        rank_tokens = -(-run.batch.global_size // world.ranks) * length
    else:
        rank_tokens = -(-int(run.batch.global_tokens or 0) // world.ranks) + length
    return Work(shape, length, rank_tokens, usual_micro_tokens(run, world))


def place_of(world: World) -> Place:
    """Return the devices and links of a world, as candidates need them."""
    gpu = GPUS.get(world.gpu)
    links = Links(gpu, world.nodes, world.local_ranks) if gpu is not None and world.device == "cuda" else None
    return Place(world.ranks, world.device, world.device_memory if world.device == "cuda" else None, links)


def asked_of(run: RunConfig, world: World, settled: Mapping[str, Any]) -> Asked:
    """Return the settings that the run file and the user's own DeepSpeed file allow."""
    engine = run.engine
    recomputed = engine.activation_checkpointing
    return Asked(
        stages=_stages(run, settled),
        precisions=_allowed_precisions(run, world, settled),
        offload=engine.offload,
        checkpointing=(False, True) if recomputed == "auto" else (bool(recomputed),),
        budgets=() if run.batch.micro_tokens == "auto" else (run.batch.micro_tokens,),
        backend_without_zero=_backend_without_zero(run, world),
        kernel=engine.kernels,
        optimizer=str(run.trainer.get("optim", "adamw_torch_fused")),
    )


def _stages(run: RunConfig, settled: Mapping[str, Any]) -> tuple[int, ...]:
    engine = run.engine
    if engine.zero_stage != "auto":
        return (engine.zero_stage,)
    if "zero_stage" in settled or engine.deepspeed:
        return (int(settled.get("zero_stage", lowest_stage(engine.offload))),)
    if engine.backend in ("ddp", "none"):
        return (0,)
    return tuple(range(lowest_stage(engine.offload), 4))


def _allowed_precisions(run: RunConfig, world: World, settled: Mapping[str, Any]) -> tuple[Precision, ...]:
    if run.engine.precision != "auto":
        return (run.engine.precision,)
    if run.engine.deepspeed and "precision" in settled:
        return (settled["precision"],)
    if world.bf16_supported:
        return ("bf16",)
    return ("fp32", "fp16") if world.device == "cuda" else ("fp32",)


def _precisions(world: World) -> tuple[Precision, ...]:
    if world.device == "cpu":
        return ("bf16", "fp32")
    return ("bf16", "fp16", "fp32") if world.bf16_supported else ("fp16", "fp32")


def _backend_without_zero(run: RunConfig, world: World) -> Any:
    if run.engine.backend != "auto":
        return run.engine.backend
    if run.engine.deepspeed or world.launcher == "deepspeed":
        return "deepspeed"
    return "ddp" if world.ranks > 1 else "none"


def gib(size: float) -> str:
    """Format bytes as GiB with one decimal."""
    return f"{size / GIB:.1f}"


def described(candidate: Candidate) -> str:
    """Describe a candidate's settings in words."""
    setting = candidate.setting
    words = [f"ZeRO {setting.zero_stage}"]
    if setting.offload != "none":
        words.append(f"offload {setting.offload}")
    if setting.checkpointing:
        words.append("activations recomputed")
    return ", ".join([*words, setting.precision, f"micro-batches of {candidate.batch.tokens:,} tokens"])


def reason_of(found: Fitting) -> str:
    """Explain the choice in one sentence: the memory it needs, and why no simpler candidate was taken."""
    chosen, available = found.chosen, found.place.memory
    stage = f"ZeRO {chosen.setting.zero_stage}"
    if available is None:
        unknown = "the GPU's memory is not known" if found.place.device == "cuda" else "no limit is assumed for a CPU"
        return f"{stage}: {gib(chosen.memory.total)} GiB a rank; {unknown}"
    needs = f"{stage}: {gib(chosen.memory.total)} GiB of {gib(available)} GiB"
    if chosen.fits == "tight":
        return f"{needs}, without headroom: nothing that the settings allow needs less"
    if chosen.plain:
        return f"{needs}, nothing needs splitting"
    simple = [candidate for candidate in found.candidates if candidate.plain and candidate.allowed]
    if not simple:
        return f"{needs}, as the settings ask"
    least = min(simple, key=lambda candidate: candidate.memory.total)
    wanted = max(simple, key=lambda candidate: candidate.batch.tokens)
    if least.fits == "yes":
        return (
            f"{needs}, faster than ZeRO 0 in micro-batches that fit; its usual ones need {gib(wanted.memory.total)} GiB"
        )
    return f"{needs}; ZeRO 0 alone needs {gib(least.memory.total)} GiB"


def without(found: Fitting, **changed: Any) -> Candidate | None:
    """Return the candidate that differs from the chosen one only in what `changed` names; None where there is none."""
    setting = replace(found.chosen.setting, **{key: value for key, value in changed.items() if key != "micro_tokens"})
    budget = changed.get("micro_tokens", found.chosen.micro_tokens)
    same = (c for c in found.candidates if c.setting == setting and c.micro_tokens == budget)
    return next(same, None)


def _nowhere(run: RunConfig, work: Work, place: Place, asked: Asked, candidates: Sequence[Candidate]) -> str:
    """Return the error message where nothing fits: the missing memory, and the changes that would make one fit."""
    allowed = [candidate for candidate in candidates if candidate.allowed]
    if not allowed:
        return "the engine's settings exclude each other: no ZeRO stage, precision and offload are left."
    least, available = min(allowed, key=lambda candidate: candidate.memory.total), place.memory or 0
    needed = least.memory.total + RESERVED
    text = (
        f"no setting that the run allows fits the GPU's {gib(available)} GiB. The smallest ({described(least)}) needs "
        f"{gib(needed)} GiB, {gib(needed - available)} GiB too much."
    )
    ways = list(_ways_out(run, work, place, asked, candidates, needed))
    return f"{text} What would make it fit: {'; '.join(ways)}." if ways else text


def _ways_out(
    run: RunConfig, work: Work, place: Place, asked: Asked, candidates: Sequence[Candidate], needed: int
) -> Iterator[str]:
    other = [candidate for candidate in candidates if not candidate.allowed and candidate.fits == "yes"]
    other = other or [c for c in all_candidates(work, place, asked, asked.precisions) if c.fits == "yes"]
    if other:
        simplest = min(other, key=lambda candidate: candidate.effort)
        yield f"other settings ({described(simplest)})"
    more = _enough_ranks(work, place, asked)
    if more is not None:
        yield f"{more} GPUs of this size instead of {place.ranks}"
    bigger = [gpu for gpu in GPUS.values() if gpu.memory >= needed]
    if bigger:
        yield f"a GPU of {math.ceil(needed / GIB)} GiB, such as {min(bigger, key=lambda gpu: gpu.memory).name}"
    shorter = _short_enough(work, place, asked)
    if shorter is not None:
        yield f"data.max_length = {shorter}"


def _fits_somewhere(work: Work, place: Place, asked: Asked) -> bool:
    return choose(all_candidates(work, place, asked, asked.precisions), asked) is not None


def _enough_ranks(work: Work, place: Place, asked: Asked) -> int | None:
    """Double the ranks until a candidate fits; None where ranks would have no example, or above MOST_RANKS."""
    ranks = place.ranks * 2
    while ranks <= MOST_RANKS:
        share = replace(work, rank_tokens=max(work.length, work.rank_tokens * place.ranks // ranks))
        if work.rank_tokens * place.ranks < ranks * work.length:
            return None
        if _fits_somewhere(share, replace(place, ranks=ranks), asked):
            return ranks
        ranks *= 2
    return None


def _short_enough(work: Work, place: Place, asked: Asked) -> int | None:
    """Halve data.max_length until a candidate fits; None below 8 tokens."""
    length = work.length // 2
    while length >= 8:
        share = replace(work, length=length, rank_tokens=work.rank_tokens * length // work.length)
        if _fits_somewhere(share, place, replace(asked, budgets=())):
            return length
        length //= 2
    return None
