"""A run and a world -> a Plan: every automatic choice, resolved once, with its reason. Pure."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ftsys.config import RunConfig, lowest_stage
from ftsys.errors import ConfigError
from launcher.world import Device, World, this_machine

__all__ = ["Plan", "World", "make_plan", "this_machine", "warmup_steps"]

PLAN_FORMAT = 1
CPU_MICRO_TOKENS, CUDA_MICRO_TOKENS = 4_096, 16_384


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
    compile: bool | Literal["auto"]
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


def make_plan(
    run: RunConfig,
    world: World,
    train_rows: int | None = None,
    *,
    steps_per_epoch: int | None = None,
    packed: bool = True,
    deepspeed_json: Mapping[str, Any] | None = None,
) -> Plan:
    """Resolve every automatic choice of a run for a world.

    `train_rows` are the examples of the training split, `steps_per_epoch` the steps that a batch plan counted (steps
    sized in tokens need it); without them the step counts are None. `packed`: the model is computed without padding.
    `deepspeed_json` is the content of the user's own DeepSpeed file, which settles what the run leaves "auto".
    Raises ConfigError with everything that cannot work in this world.
    """
    asked = _settled_by_json(deepspeed_json or {})
    reasons: dict[str, str] = {}
    stage = _zero_stage(run, asked, reasons)
    backend = _backend(run, world, stage, reasons)
    precision = _precision(run, world, asked, reasons)
    steps = _steps(run, train_rows, steps_per_epoch)
    ConfigError.raise_if(_impossible(run, world, backend, precision, train_rows))
    size = run.batch.global_size
    return Plan(
        ranks=world.ranks,
        nodes=world.nodes,
        local_ranks=world.local_ranks,
        device=world.device,
        backend=backend,
        zero_stage=stage,
        offload=run.engine.offload,
        precision=precision,
        optimizer=run.trainer.get("optim", "adamw_torch_fused"),
        max_grad_norm=float(run.trainer.get("max_grad_norm", 1.0)),
        seed=run.train.seed,
        order=_order(run, packed, reasons),
        micro_tokens=_micro_tokens(run, world, reasons),
        kernels=run.engine.kernels,
        compile=run.engine.compile,
        global_size=size,
        global_tokens=run.batch.global_tokens,
        rank_examples=size // world.ranks if size is not None else None,
        ranks_with_one_more=size % world.ranks if size is not None else None,
        train_rows=train_rows,
        epochs=run.train.epochs,
        steps_per_epoch=steps[0],
        total_steps=steps[1],
        warmup_steps=warmup_steps(run.trainer.get("warmup_steps", 0), steps[1]),
        reasons=reasons,
        notes=tuple(_notes(run, world, precision)),
    )


def _settled_by_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a user's DeepSpeed file says of the choices that a run file may leave open."""

    def inside(section: str, key: str) -> Any:
        value = config.get(section)
        return value.get(key) if isinstance(value, Mapping) else None

    settled: dict[str, Any] = {}
    stage = inside("zero_optimization", "stage")
    if type(stage) is int and 0 <= stage <= 3:
        settled["zero_stage"] = stage
    switches = {name: inside(name, "enabled") for name in ("bf16", "fp16")}
    on = [name for name, switch in switches.items() if switch is True]
    if len(on) == 1:
        settled["precision"] = on[0]
    elif switches["bf16"] is False and switches["fp16"] in (False, None):
        settled["precision"] = "fp32"
    return settled


def _zero_stage(run: RunConfig, asked: Mapping[str, Any], reasons: dict[str, str]) -> int:
    stage, offload = run.engine.zero_stage, run.engine.offload
    if stage != "auto":
        reasons["zero_stage"] = f"engine.zero_stage = {stage}"
        return stage
    if "zero_stage" in asked:
        reasons["zero_stage"] = f"the DeepSpeed file {run.engine.deepspeed!r} says {asked['zero_stage']}"
        return int(asked["zero_stage"])
    if offload != "none":
        lowest = lowest_stage(offload)
        reasons["zero_stage"] = f"engine.offload = {offload!r} needs stage {lowest}"
        return lowest
    reasons["zero_stage"] = "an encoder's weights, gradients and optimizer state fit one device, so nothing is split"
    return 0


def _backend(run: RunConfig, world: World, stage: int, reasons: dict[str, str]) -> Literal["deepspeed", "ddp", "none"]:
    backend = run.engine.backend
    if backend != "auto":
        reasons["backend"] = f"engine.backend = {backend!r}"
        return backend
    if stage or run.engine.deepspeed:
        reasons["backend"] = f"ZeRO {stage} is DeepSpeed's" if stage else "engine.deepspeed names a DeepSpeed file"
        return "deepspeed"
    if world.launcher == "deepspeed":
        reasons["backend"] = "started by the deepspeed launcher"
        return "deepspeed"
    several = world.ranks > 1
    reasons["backend"] = f"{world.ranks} ranks without ZeRO" if several else "one process has nobody to average with"
    return "ddp" if several else "none"


def _precision(
    run: RunConfig, world: World, asked: Mapping[str, Any], reasons: dict[str, str]
) -> Literal["bf16", "fp16", "fp32"]:
    precision = run.engine.precision
    if precision != "auto":
        reasons["precision"] = f"engine.precision = {precision!r}"
        return precision
    if run.engine.deepspeed and "precision" in asked:
        reasons["precision"] = f"the DeepSpeed file {run.engine.deepspeed!r} says {asked['precision']}"
        settled: Literal["bf16", "fp16", "fp32"] = asked["precision"]
        return settled
    reasons["precision"] = f"this {world.device} computes bf16" + (
        "" if world.bf16_supported else " slowly or not at all"
    )
    return "bf16" if world.bf16_supported else "fp32"


def _order(run: RunConfig, packed: bool, reasons: dict[str, str]) -> Literal["random", "length_grouped"]:
    if run.batch.order != "auto":
        reasons["order"] = f"batch.order = {run.batch.order!r}"
        return run.batch.order
    reasons["order"] = (
        "packed batches hold no padding" if packed else "padded batches of like lengths hold less padding"
    )
    return "random" if packed else "length_grouped"


def _micro_tokens(run: RunConfig, world: World, reasons: dict[str, str]) -> int:
    if run.batch.micro_tokens != "auto":
        reasons["micro_tokens"] = f"batch.micro_tokens = {run.batch.micro_tokens}"
        return run.batch.micro_tokens
    budget = CUDA_MICRO_TOKENS if world.device == "cuda" else CPU_MICRO_TOKENS
    reasons["micro_tokens"] = f"{budget} on {world.device}, at least data.max_length = {run.data.max_length}"
    return max(budget, run.data.max_length)


def _steps(run: RunConfig, rows: int | None, steps_per_epoch: int | None) -> tuple[int | None, int | None]:
    """(steps per epoch, total steps). An epoch's last step takes what is left, so each example is seen exactly once."""
    if steps_per_epoch is None and rows is not None and run.batch.global_size is not None:
        steps_per_epoch = math.ceil(rows / run.batch.global_size)
    if run.train.max_steps is not None:
        return steps_per_epoch, run.train.max_steps
    if steps_per_epoch is None or run.train.epochs is None:
        return steps_per_epoch, None
    return steps_per_epoch, math.ceil(run.train.epochs * steps_per_epoch)


def warmup_steps(asked: float, total_steps: int | None) -> int | None:
    """Warm-up steps as transformers counts them: a number below 1 is a share of all steps, rounded up."""
    if asked >= 1 or asked == 0:
        return int(asked)
    return None if total_steps is None else math.ceil(total_steps * asked)


def _impossible(run: RunConfig, world: World, backend: str, precision: str, rows: int | None) -> list[str]:
    """Everything that this world cannot do, as messages."""
    found: list[str] = []
    size = run.batch.global_size
    if precision == "fp16" and world.device == "cpu":
        found.append(
            "engine.precision='fp16' cannot be computed on a CPU (DeepSpeed refuses it, torch is many times slower): "
            'write "bf16" or "fp32", or "auto".'
        )
    if backend == "none" and world.ranks > 1:
        found.append(
            f"engine.backend='none' is one process, but {world.ranks} ranks were started: "
            'write "ddp", "deepspeed" or "auto", or start one.'
        )
    if size is not None and world.ranks > size:
        found.append(
            f"batch.global_size={size!r} has fewer examples in a step than there are ranks ({world.ranks}): "
            f"the smallest that works is {world.ranks}, or start at most {size} rank(s)."
        )
    if run.batch.global_tokens is not None and run.batch.global_tokens < world.ranks * run.data.max_length:
        least = world.ranks * run.data.max_length
        found.append(
            f"batch.global_tokens={run.batch.global_tokens!r} may hold fewer examples than there are ranks "
            f"({world.ranks}): the smallest that surely works with data.max_length={run.data.max_length} is {least}."
        )
    if rows is not None and rows < world.ranks:
        found.append(f"the training split has {rows} examples for {world.ranks} ranks: start at most {max(rows, 1)}.")
    return found


def _notes(run: RunConfig, world: World, precision: str) -> list[str]:
    notes: list[str] = []
    size = run.batch.global_size
    if size is not None and size % world.ranks:
        base, more = divmod(size, world.ranks)
        notes.append(f"{size} examples over {world.ranks} ranks: {more} rank(s) have {base + 1}, the others {base}")
    if precision == "bf16" and not world.bf16_supported:
        notes.append(f"this {world.device} has no bf16 arithmetic of its own: expect it to be slower than fp32")
    if world.device == "cpu" and run.engine.offload != "none":
        notes.append(f"engine.offload = {run.engine.offload!r} gains nothing where the device is the CPU itself")
    return notes
