"""Resolves every automatic choice of a run for a world into a Plan, each with its reason. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ftsys.config import RunConfig
from ftsys.errors import ConfigError
from ftsys.files.untrusted import json_object, typed
from launcher.planner.choices import (
    Backend,
    Order,
    backend_of,
    compiled,
    impossible,
    notes_on,
    order_of,
    settled_by_json,
    step_counts,
    warmup_steps,
)
from launcher.planner.cost.activations import Precision
from launcher.planner.decision import Decision
from launcher.planner.model_shape import ModelShape
from launcher.planner.search import fitting
from launcher.planner.step_choices import StepChoices, choices_that_fit, choices_without_model
from launcher.planner.world import Device, World, this_machine

__all__ = ["Plan", "World", "make_plan", "this_machine"]

PLAN_FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """A run with every choice made, the same on all ranks.

    All values are plain JSON; sizes are in examples, tokens or optimizer steps.
    """

    ranks: int
    nodes: int
    local_ranks: int
    device: Device
    backend: Backend
    zero_stage: int
    offload: str
    precision: Precision
    optimizer: str
    max_grad_norm: float
    seed: int
    order: Order
    micro_tokens: int
    kernels: str
    compile: bool
    global_size: int | None
    """Examples of a step over all ranks; None where the step is sized in tokens."""
    global_tokens: int | None
    rank_examples: int | None
    """Least examples that a rank has in a step."""
    ranks_with_one_more: int | None
    """Number of ranks with one example more, because the step's examples do not divide by the ranks."""
    train_rows: int | None
    epochs: float | None
    steps_per_epoch: int | None
    total_steps: int | None
    warmup_steps: int | None
    """None where warm-up is a fraction of the steps and their number is not known yet."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Name of a choice -> the reason for it."""
    notes: tuple[str, ...] = ()
    """Remarks on settings that work but may surprise."""
    activation_checkpointing: bool = False
    """True where the backward pass recomputes each layer's activations."""
    cuda_graphs: bool = False
    """True where forward and backward passes are recorded as CUDA graphs and replayed."""
    predicted: dict[str, Any] | None = None
    """A step's bytes by part, seconds and bytes sent; None where the model's sizes are not known."""
    format: int = PLAN_FORMAT

    @property
    def largest_rank_examples(self) -> int | None:
        """Return the most examples that a rank has in a step; None where the step is sized in tokens."""
        if self.rank_examples is None:
            return None
        return self.rank_examples + (1 if self.ranks_with_one_more else 0)

    def to_json(self) -> str:
        """Return the text of plan.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read the text that `to_json` wrote. Raises ConfigError for another format and for anything else."""
        try:
            values = json_object(text)
            found = values.get("format")
            if found == PLAN_FORMAT:
                return typed(cls, values)
        except ValueError as error:
            raise ConfigError(f"the text is no plan ({error}): make the plan again.") from error
        raise ConfigError(f"plan has format {found!r}, this version reads {PLAN_FORMAT}: make the plan again.")


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
    """Resolve every "auto" of a run for a world.

    `train_rows` is the number of training examples, `steps_per_epoch` the count of a batch plan (steps sized in tokens
    need it); without them the step counts are None. `packed`: the model is fed batches without padding.
    `deepspeed_json`, the user's own DeepSpeed file, decides what the run leaves "auto". With `model`, memory is
    predicted, and where the GPU's memory is known the "auto" settings are chosen to fit it.
    Raises ConfigError with every setting that cannot work in this world, and where no allowed setting fits the GPU.
    """
    settled = settled_by_json(deepspeed_json or {})
    step = choices_without_model(run, world, settled)
    backend = backend_of(run, world, step.zero_stage.value)
    ConfigError.raise_if(impossible(run, world, backend.value, step.precision.value, train_rows))
    if model is not None:
        step = choices_that_fit(run, world, step, fitting(run, world, model, settled))
        backend = backend_of(run, world, step.zero_stage.value)
    counts = _counts(run, world, train_rows, steps_per_epoch)
    order, compiles = order_of(run, packed), compiled(run)
    plan = Plan(
        backend=backend.value,
        zero_stage=step.zero_stage.value,
        precision=step.precision.value,
        activation_checkpointing=step.checkpointing.value,
        micro_tokens=step.micro_tokens.value,
        order=order.value,
        compile=compiles.value,
        reasons=_reasons(step, backend, order, compiles),
        notes=tuple(notes_on(run, world, step.precision.value)),
        predicted=step.predicted,
        **_of_the_world(world),
        **_of_the_run(run),
        **counts,
    )
    graphs = _graphs(run.engine.cuda_graphs, plan, packed)
    return replace(plan, cuda_graphs=graphs.value, reasons={**plan.reasons, "cuda_graphs": graphs.why})


def _reasons(
    step: StepChoices, backend: Decision[Backend], order: Decision[Order], compiles: Decision[bool]
) -> dict[str, str]:
    """Collect the plan's reasons, by the name of the choice."""
    return {
        "activation_checkpointing": step.checkpointing.why,
        "micro_tokens": step.micro_tokens.why,
        "zero_stage": step.zero_stage.why,
        "precision": step.precision.why,
        **({"fit": step.fit} if step.fit is not None else {}),
        "backend": backend.why,
        "order": order.why,
        "compile": compiles.why,
    }


def _of_the_world(world: World) -> dict[str, Any]:
    """Return the plan's fields that describe the ranks and their devices."""
    return {"ranks": world.ranks, "nodes": world.nodes, "local_ranks": world.local_ranks, "device": world.device}


def _graphs(asked: bool | Literal["auto"], plan: Plan, packed: bool) -> Decision[bool]:
    """Choose CUDA graphs where possible, unless the GPU is predicted to compute longer than the host launches.

    Raises ConfigError where they are asked for and cannot be had.
    """
    wrong = _why_no_graphs(plan, packed)
    if asked is True:
        ask = "Leave it out, or see docs/reference/models.md for what it needs."
        ConfigError.raise_if(f"engine.cuda_graphs=True is not available here: {reason}. {ask}" for reason in wrong)
    if asked != "auto":
        return Decision(asked, f"engine.cuda_graphs = {str(asked).lower()}")
    unwise = wrong or _why_unwise(plan)
    if unwise:
        return Decision(False, unwise[0])
    predicted = plan.predicted or {}
    if "launches" not in predicted:
        return Decision(True, "one GPU and packed batches: a pass becomes one launch")
    launching, computing = predicted["launching_seconds"], predicted["computing_seconds"]
    told = f"the host needs {launching * 1e3:.1f} ms for {predicted['launches']:,} launches a step, the GPU"
    return Decision(launching > computing, f"{told} {computing * 1e3:.1f} ms to compute it; predicted, not measured")


def _why_no_graphs(plan: Plan, packed: bool) -> list[str]:
    """Return each property of the plan that rules out CUDA graphs."""
    wrong = {
        f"the run is on {plan.device}": plan.device != "cuda",
        f"it has {plan.ranks} ranks without DDP": plan.ranks > 1 and plan.backend == "none",
        "DeepSpeed moves weights and gradients between passes": plan.backend == "deepspeed",
        "fp16 scales each loss by another factor": plan.precision == "fp16",
        "activations are computed again": plan.activation_checkpointing,
        "batch.global_tokens makes batches of many sizes": plan.global_tokens is not None,
        "the model is fed padded batches": not packed,
    }
    return [reason for reason, holds in wrong.items() if holds]


def _why_unwise(plan: Plan) -> list[str]:
    """Return the reasons to leave out CUDA graphs that could be had.

    With DDP, gradients are reduced after the passes instead of beside them, and no GPU has tried it. Recorded passes
    keep their memory apart from that of other passes, so a step may need twice as much.
    """
    if plan.ranks > 1:
        return [f"it has {plan.ranks} ranks, whose recorded passes no GPU has tried: engine.cuda_graphs = true does"]
    predicted = plan.predicted or {}
    memory, needed = predicted.get("device_memory"), predicted.get("bytes", {}).get("total", 0)
    tight = memory is not None and 2 * needed > memory
    return ["a step fills more than half of the GPU, and recorded passes keep their memory apart"] if tight else []


def _of_the_run(run: RunConfig) -> dict[str, Any]:
    """Return the plan's fields that the run file sets directly."""
    return {
        "offload": run.engine.offload,
        "optimizer": run.trainer.get("optim", "adamw_torch_fused"),
        "max_grad_norm": float(run.trainer.get("max_grad_norm", 1.0)),
        "seed": run.train.seed,
        "kernels": run.engine.kernels,
        "global_size": run.batch.global_size,
        "global_tokens": run.batch.global_tokens,
        "epochs": run.train.epochs,
    }


def _counts(run: RunConfig, world: World, rows: int | None, steps_per_epoch: int | None) -> dict[str, Any]:
    """Count the examples of a rank and the steps of the run; None for what cannot be counted yet."""
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
