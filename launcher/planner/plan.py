"""A run and a world -> a Plan: every automatic choice, resolved once, with its reason. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ftsys.config import RunConfig
from ftsys.errors import ConfigError
from launcher.planner.choices import (
    backend_of,
    compiled,
    impossible,
    notes_on,
    order_of,
    precision_of,
    settled_by_json,
    step_counts,
    usual_micro_tokens,
    warmup_steps,
    zero_stage,
)
from launcher.planner.model_shape import ModelShape
from launcher.planner.search import Fitting, fitting, gib, reason_of, without
from launcher.planner.world import Device, World, this_machine

__all__ = ["Plan", "World", "make_plan", "this_machine", "warmup_steps"]

PLAN_FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """What every rank does, resolved once. All values are plain JSON; sizes in examples, tokens or optimizer steps."""

    ranks: int
    nodes: int
    local_ranks: int
    device: Device
    backend: Literal["deepspeed", "ddp", "none"]
    zero_stage: int
    offload: str
    precision: Literal["bf16", "fp16", "fp32"]
    optimizer: str
    max_grad_norm: float
    seed: int
    order: Literal["random", "length_grouped"]
    micro_tokens: int
    kernels: str
    compile: bool
    global_size: int | None
    """Examples of a step; None where the step is sized in tokens."""
    global_tokens: int | None
    rank_examples: int | None
    """Examples of a step that every rank has at least."""
    ranks_with_one_more: int | None
    """Ranks that have one example more, because the step's examples do not divide by the ranks."""
    train_rows: int | None
    epochs: float | None
    steps_per_epoch: int | None
    total_steps: int | None
    warmup_steps: int | None
    """None while the number of steps is not known and the warm-up is a share of it."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Choice -> why it was made."""
    notes: tuple[str, ...] = ()
    """What a user may want to know and nothing forbids."""
    activation_checkpointing: bool = False
    """Whether layers' activations are computed again in the backward pass."""
    cuda_graphs: bool = False
    """Whether passes are recorded and replayed."""
    predicted: dict[str, Any] | None = None
    """Of a step, where the model's sizes are known: bytes by part, seconds, bytes sent."""
    format: int = PLAN_FORMAT

    @property
    def largest_rank_examples(self) -> int | None:
        """Examples of a step that the fullest rank has; None where the step is sized in tokens."""
        if self.rank_examples is None:
            return None
        return self.rank_examples + (1 if self.ranks_with_one_more else 0)

    def to_json(self) -> str:
        """The plan as the text of plan.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read what `to_json` wrote. Raises ConfigError for another format."""
        values = json.loads(text)
        if values.get("format") != PLAN_FORMAT:
            found = values.get("format")
            raise ConfigError(f"plan has format {found!r}, this version reads {PLAN_FORMAT}: make the plan again.")
        return cls(**{**values, "notes": tuple(values["notes"])})


@dataclass(frozen=True)
class _Computed:
    """How a step is computed."""

    stage: int
    precision: Literal["bf16", "fp16", "fp32"]
    micro_tokens: int
    checkpointing: bool
    predicted: dict[str, Any] | None = None


def make_plan(
    run: RunConfig,
    world: World,
    train_rows: int | None = None,
    *,
    steps_per_epoch: int | None = None,
    packed: bool = True,
    deepspeed_json: Mapping[str, Any] | None = None,
    model: ModelShape | None = None,
) -> Plan:
    """Resolve every automatic choice of a run for a world.

    `train_rows` are the examples of the training split, `steps_per_epoch` the steps that a batch plan counted (steps
    sized in tokens need it); without them the step counts are None. `packed`: the model is computed without padding.
    `deepspeed_json` is the content of the user's own DeepSpeed file, which settles what the run leaves "auto". With
    `model` memory is predicted, and where the world knows how much a GPU has, what is "auto" is chosen to fit it.
    Raises ConfigError with everything that cannot work in this world, a model that fits nowhere included.
    """
    settled, reasons = settled_by_json(deepspeed_json or {}), dict[str, str]()
    computed = _without_model(run, world, settled, reasons)
    ConfigError.raise_if(_impossible(run, world, computed, train_rows))
    if model is not None:
        computed = _fitted(run, world, fitting(run, world, model, settled), reasons)
    counts = _counts(run, world, train_rows, steps_per_epoch)
    plan = Plan(
        ranks=world.ranks,
        nodes=world.nodes,
        local_ranks=world.local_ranks,
        device=world.device,
        backend=backend_of(run, world, computed.stage, reasons),
        zero_stage=computed.stage,
        offload=run.engine.offload,
        precision=computed.precision,
        activation_checkpointing=computed.checkpointing,
        order=order_of(run, packed, reasons),
        micro_tokens=computed.micro_tokens,
        compile=compiled(run, world, counts["total_steps"], computed.predicted, reasons),
        **_of_the_run(run),
        **counts,
        reasons=reasons,
        notes=tuple(notes_on(run, world, computed.precision)),
        predicted=computed.predicted,
    )
    ConfigError.raise_if(_why_no_graphs(plan, packed) if plan.cuda_graphs else [])
    return plan


def _why_no_graphs(plan: Plan, packed: bool) -> list[str]:
    """Everything that keeps passes from being recorded, as messages."""
    wrong = {
        f"the run is on {plan.device}": plan.device != "cuda",
        f"it has {plan.ranks} ranks": plan.ranks > 1,
        "DeepSpeed moves weights and gradients between passes": plan.backend == "deepspeed",
        "fp16 scales each loss anew": plan.precision == "fp16",
        "activations are computed again": plan.activation_checkpointing,
        "batch.global_tokens makes batches of many sizes": plan.global_tokens is not None,
        "the model is fed padded batches": not packed,
    }
    ask = "Leave it out, or see docs/reference/models.md for what it needs."
    return [f"engine.cuda_graphs=True cannot be had here: {reason}. {ask}" for reason, holds in wrong.items() if holds]


def _of_the_run(run: RunConfig) -> dict[str, Any]:
    """What the run file says outright."""
    return {
        "optimizer": run.trainer.get("optim", "adamw_torch_fused"),
        "max_grad_norm": float(run.trainer.get("max_grad_norm", 1.0)),
        "seed": run.train.seed,
        "kernels": run.engine.kernels,
        "cuda_graphs": run.engine.cuda_graphs,
        "global_size": run.batch.global_size,
        "global_tokens": run.batch.global_tokens,
        "epochs": run.train.epochs,
    }


def _counts(run: RunConfig, world: World, rows: int | None, steps_per_epoch: int | None) -> dict[str, Any]:
    """Examples of a rank and steps of the run, as far as they can be counted."""
    size = run.batch.global_size
    an_epoch, in_all = step_counts(run, rows, steps_per_epoch)
    return {
        "rank_examples": size // world.ranks if size is not None else None,
        "ranks_with_one_more": size % world.ranks if size is not None else None,
        "train_rows": rows,
        "steps_per_epoch": an_epoch,
        "total_steps": in_all,
        "warmup_steps": warmup_steps(run.trainer.get("warmup_steps", 0), in_all),
    }


def _impossible(run: RunConfig, world: World, computed: _Computed, rows: int | None) -> list[str]:
    backend = backend_of(run, world, computed.stage, {})
    return impossible(run, world, backend, computed.precision, rows)


def _without_model(run: RunConfig, world: World, settled: Mapping[str, Any], reasons: dict[str, str]) -> _Computed:
    """The choices where nobody knows what the model needs."""
    asked, micro_tokens = run.engine.activation_checkpointing, run.batch.micro_tokens
    if asked == "auto":
        reasons["activation_checkpointing"] = "activations are kept unless a GPU's memory asks for less"
    else:
        reasons["activation_checkpointing"] = f"engine.activation_checkpointing = {str(asked).lower()}"
    usual = usual_micro_tokens(run, world)
    if micro_tokens == "auto":
        at_least = f"at least data.max_length = {run.data.max_length}"
        reasons["micro_tokens"] = f"{usual} on {world.device}, {at_least}"
    else:
        reasons["micro_tokens"] = f"batch.micro_tokens = {micro_tokens}"
    return _Computed(
        zero_stage(run, settled, reasons),
        precision_of(run, world, settled, reasons),
        usual if micro_tokens == "auto" else micro_tokens,
        asked is True,
    )


def _fitted(run: RunConfig, world: World, found: Fitting, reasons: dict[str, str]) -> _Computed:
    """The choices that the model's memory decides, and what is predicted of them."""
    chosen, engine = found.chosen, run.engine
    setting, known = chosen.setting, found.place.memory is not None
    if known and engine.zero_stage == "auto" and not engine.deepspeed:
        reasons["zero_stage"] = reason_of(found).partition(": ")[2]
    if known and engine.activation_checkpointing == "auto":
        reasons["activation_checkpointing"] = _why_recomputed(found)
    if known and run.batch.micro_tokens == "auto" and chosen.micro_tokens < usual_micro_tokens(run, world):
        larger = without(found, micro_tokens=found.work.micro_tokens)
        why = f": one of {larger.batch.tokens:,} tokens would need {gib(larger.memory.total)} GiB" if larger else ""
        reasons["micro_tokens"] = f"what fits{why}"
    if setting.precision != "bf16" and len({c.setting.precision for c in found.candidates if c.allowed}) > 1:
        reasons["precision"] += f"; {setting.precision} is what fits" if setting.precision == "fp16" else ""
    reasons["fit"] = reason_of(found)
    predicted = {
        "moment": chosen.memory.moment,
        "bytes": asdict(chosen.memory.parts) | {"total": chosen.memory.total},
        "device_memory": found.place.memory,
        "fits": chosen.fits,
        "micro_batches": chosen.micro_batches,
        "sent_bytes": chosen.sent,
        "seconds": chosen.seconds,
    }
    return _Computed(setting.zero_stage, setting.precision, chosen.micro_tokens, setting.checkpointing, predicted)


def _why_recomputed(found: Fitting) -> str:
    if not found.chosen.setting.checkpointing:
        return "activations fit"
    kept = without(found, checkpointing=False)
    return f"kept activations would need {gib(kept.memory.total)} GiB" if kept else "kept activations would not fit"
