"""Chooses how a step is computed: ZeRO stage, precision, micro-batch and recomputation, each with its reason. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ftsys.config import RunConfig
from launcher.planner.candidates import Candidate
from launcher.planner.choices import (
    checkpointing_of,
    micro_tokens_of,
    precision_of,
    usual_micro_tokens,
    zero_stage,
)
from launcher.planner.cost.activations import Precision
from launcher.planner.decision import Decision
from launcher.planner.gpus import gib
from launcher.planner.search import Fitting, reason_of, without
from launcher.planner.world import World


@dataclass(frozen=True)
class StepChoices:
    """The choices that decide how much memory a step needs."""

    checkpointing: Decision[bool]
    micro_tokens: Decision[int]
    zero_stage: Decision[int]
    precision: Decision[Precision]
    fit: str | None = None
    """Predicted memory against available memory, in words; None where the model's sizes are not known."""
    predicted: dict[str, Any] | None = None
    """The step's predicted bytes, seconds and traffic as plain JSON; None where the model's sizes are not known."""


def choices_without_model(run: RunConfig, world: World, settled: Mapping[str, Any]) -> StepChoices:
    """Choose without knowing the model's sizes; `settled` comes from the user's DeepSpeed file."""
    return StepChoices(
        checkpointing=checkpointing_of(run),
        micro_tokens=micro_tokens_of(run, world),
        zero_stage=zero_stage(run, settled),
        precision=precision_of(run, world, settled),
    )


def choices_that_fit(run: RunConfig, world: World, before: StepChoices, found: Fitting) -> StepChoices:
    """Take the choices of the candidate in `found`; a reason changes only where memory decided."""
    setting = found.chosen.setting
    return StepChoices(
        checkpointing=Decision(setting.checkpointing, _why_checkpointing(run, found) or before.checkpointing.why),
        micro_tokens=Decision(found.chosen.micro_tokens, _why_smaller(run, world, found) or before.micro_tokens.why),
        zero_stage=Decision(setting.zero_stage, _why_stage(run, found) or before.zero_stage.why),
        precision=Decision(setting.precision, before.precision.why + _why_half(found)),
        fit=reason_of(found),
        predicted=_predicted(found),
    )


def _why_checkpointing(run: RunConfig, found: Fitting) -> str | None:
    if found.hardware.memory is None or run.engine.activation_checkpointing != "auto":
        return None
    if not found.chosen.setting.checkpointing:
        return "activations fit"
    kept = without(found, checkpointing=False)
    return f"kept activations would need {gib(kept.memory.total)} GiB" if kept else "kept activations would not fit"


def _why_smaller(run: RunConfig, world: World, found: Fitting) -> str | None:
    """Explain a micro-batch below the default; None for the default, or for one that the run sets."""
    if found.hardware.memory is None or run.batch.micro_tokens != "auto":
        return None
    if found.chosen.micro_tokens >= usual_micro_tokens(run, world):
        return None
    larger = without(found, micro_tokens=found.work.micro_tokens)
    why = f": one of {larger.batch.tokens:,} tokens would need {gib(larger.memory.total)} GiB" if larger else ""
    return f"what fits{why}"


def _why_stage(run: RunConfig, found: Fitting) -> str | None:
    if found.hardware.memory is None or run.engine.zero_stage != "auto" or run.engine.deepspeed:
        return None
    return reason_of(found).partition(": ")[2]


def _why_half(found: Fitting) -> str:
    """Return the words to append where fp16 was taken because fp32 does not fit; else an empty text."""
    choices = {candidate.setting.precision for candidate in found.candidates if candidate.allowed}
    return "; fp16 is what fits" if found.chosen.setting.precision == "fp16" and len(choices) > 1 else ""


def _predicted(found: Fitting) -> dict[str, Any]:
    chosen = found.chosen
    return {
        "moment": chosen.memory.moment,
        "bytes": asdict(chosen.memory.parts) | {"total": chosen.memory.total},
        "device_memory": found.hardware.memory,
        "fits": chosen.fits,
        "micro_batches": chosen.micro_batches,
        "sent_bytes": chosen.sent,
        "seconds": chosen.seconds,
        **_times(chosen),
    }


def _times(chosen: Candidate) -> dict[str, Any]:
    time = chosen.time
    if time is None:
        return {}
    return {
        "launches": time.launches,
        "computing_seconds": time.computing,
        "launching_seconds": time.launching,
        "graphs_seconds": time.seconds(graphs=True),
    }
