"""Searches the ways to compute a run's step for the one to take, and explains the choice. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ftsys.config import RunConfig, lowest_stage
from ftsys.errors import ConfigError
from launcher.planner.candidates import Candidate, Constraints, Hardware, Work, all_candidates, choose
from launcher.planner.choices import backend_of, precision_of, usual_micro_tokens
from launcher.planner.cost.activations import Precision
from launcher.planner.cost.step_time import Links
from launcher.planner.gpus import GPUS, gib
from launcher.planner.model_shape import ModelShape, not_recomputable
from launcher.planner.remedies import why_nothing_fits
from launcher.planner.world import World


@dataclass(frozen=True)
class Fitting:
    """The candidates of a run's step, and the chosen one."""

    work: Work
    hardware: Hardware
    candidates: tuple[Candidate, ...]
    chosen: Candidate


def fitting(
    run: RunConfig, world: World, shape: ModelShape, settled: Mapping[str, Any], everything: bool = False
) -> Fitting:
    """Choose how to compute a step of `shape`; `settled` comes from the user's own DeepSpeed file.

    With `everything` the result also has the candidates that the run's settings rule out, for a table. Raises
    ConfigError where no allowed candidate fits, with the missing memory and the changes that would make one fit.
    """
    work, hardware = work_of(run, world, shape), hardware_of(world)
    constraints = constraints_of(run, world, settled)
    if not shape.recomputable:
        if run.engine.activation_checkpointing is True:
            raise ConfigError(not_recomputable(shape.family))
        constraints = replace(constraints, checkpointing=(False,))
    precisions = _precisions(world) if everything else constraints.precisions
    candidates = all_candidates(work, hardware, constraints, precisions)
    chosen = choose(candidates, constraints)
    if chosen is None:
        raise ConfigError(why_nothing_fits(work, hardware, constraints, candidates))
    kept = candidates if everything else [candidate for candidate in candidates if candidate.allowed]
    return Fitting(work, hardware, tuple(kept), chosen)


def work_of(run: RunConfig, world: World, shape: ModelShape) -> Work:
    """Return the work of one rank in a step, with every example as long as the run and the model allow."""
    length = min(run.data.max_length, shape.longest or run.data.max_length)
    if run.batch.global_size is not None:
        rank_tokens = -(-run.batch.global_size // world.ranks) * length
    else:
        rank_tokens = -(-int(run.batch.global_tokens or 0) // world.ranks) + length
    return Work(shape, length, rank_tokens, usual_micro_tokens(run, world))


def hardware_of(world: World) -> Hardware:
    """Return the devices and links of a world, as candidates need them."""
    gpu = GPUS.get(world.gpu)
    links = Links(gpu, world.nodes) if gpu is not None and world.device == "cuda" else None
    return Hardware(world.ranks, world.device, world.device_memory if world.device == "cuda" else None, links)


def constraints_of(run: RunConfig, world: World, settled: Mapping[str, Any]) -> Constraints:
    """Return the settings that the run file and the user's own DeepSpeed file allow."""
    engine = run.engine
    recomputed = engine.activation_checkpointing
    return Constraints(
        stages=_stages(run, settled),
        precisions=_allowed_precisions(run, world, settled),
        offload=engine.offload,
        checkpointing=(False, True) if recomputed == "auto" else (bool(recomputed),),
        budgets=() if run.batch.micro_tokens == "auto" else (run.batch.micro_tokens,),
        backend_without_zero=backend_of(run, world, stage=0).value,
        kernel=engine.kernels,
        optimizer=str(run.trainer.get("optim", "adamw_torch_fused")),
        backend_of_several=backend_of(run, replace(world, ranks=2), stage=0).value,
        possible_stages=_possible_stages(run),
    )


def _stages(run: RunConfig, settled: Mapping[str, Any]) -> tuple[int, ...]:
    engine = run.engine
    if engine.zero_stage != "auto":
        return (engine.zero_stage,)
    if "zero_stage" in settled or engine.deepspeed:
        return (int(settled.get("zero_stage", lowest_stage(engine.offload))),)
    if engine.backend in ("ddp", "none"):
        return (0,)
    return tuple(stage for stage in _possible_stages(run) if stage >= lowest_stage(engine.offload))


def _possible_stages(run: RunConfig) -> tuple[int, ...]:
    """Return the ZeRO stages that the run could ask for: adapters need each rank to hold the weights whole."""
    return (0, 1, 2) if run.lora.r is not None else (0, 1, 2, 3)


def _allowed_precisions(run: RunConfig, world: World, settled: Mapping[str, Any]) -> tuple[Precision, ...]:
    """Return the preferred precision, and fp16 after it where a GPU without bf16 leaves the choice open."""
    preferred = precision_of(run, world, settled).value
    is_set = run.engine.precision != "auto" or (run.engine.deepspeed and "precision" in settled)
    open_to_fp16 = preferred == "fp32" and world.device == "cuda" and not is_set
    return (preferred, "fp16") if open_to_fp16 else (preferred,)


def _precisions(world: World) -> tuple[Precision, ...]:
    if world.device == "cpu":
        return ("bf16", "fp32")
    return ("bf16", "fp16", "fp32") if world.bf16_supported else ("fp16", "fp32")


def reason_of(found: Fitting) -> str:
    """Explain the choice in one sentence: the memory it needs, and why no simpler candidate was taken."""
    chosen, available = found.chosen, found.hardware.memory
    stage = f"ZeRO {chosen.setting.zero_stage}"
    if available is None:
        unknown = (
            "the GPU's memory is not known" if found.hardware.device == "cuda" else "no limit is assumed for a CPU"
        )
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
