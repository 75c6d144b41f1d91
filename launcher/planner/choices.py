"""The choices of a plan that need no memory model, each with its reason; and what a world cannot do. Pure."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from ftsys.config import RunConfig, lowest_stage
from launcher.planner.world import World

COMPILE_SECONDS, COMPILED_SAVES = 40.0, 0.1
"""Before the first step, and the share of a step that fused elementwise work is taken to save. No GPU was at hand."""

CPU_MICRO_TOKENS, CUDA_MICRO_TOKENS = 4_096, 16_384


def settled_by_json(config: Mapping[str, Any]) -> dict[str, Any]:
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


def zero_stage(run: RunConfig, asked: Mapping[str, Any], reasons: dict[str, str]) -> int:
    """The ZeRO stage where nothing is known of the model's memory."""
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


def backend_of(
    run: RunConfig, world: World, stage: int, reasons: dict[str, str]
) -> Literal["deepspeed", "ddp", "none"]:
    """Who averages gradients."""
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


def precision_of(
    run: RunConfig, world: World, asked: Mapping[str, Any], reasons: dict[str, str]
) -> Literal["bf16", "fp16", "fp32"]:
    """The number format of weights and activations."""
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


def order_of(run: RunConfig, packed: bool, reasons: dict[str, str]) -> Literal["random", "length_grouped"]:
    """The order of examples in an epoch."""
    if run.batch.order != "auto":
        reasons["order"] = f"batch.order = {run.batch.order!r}"
        return run.batch.order
    reasons["order"] = (
        "packed batches hold no padding" if packed else "padded batches of like lengths hold less padding"
    )
    return "random" if packed else "length_grouped"


def compiled(
    run: RunConfig,
    world: World,
    total_steps: int | None,
    predicted: Mapping[str, Any] | None,
    reasons: dict[str, str],
) -> bool:
    """Whether torch.compile pays: what it is taken to save in all steps, against what it takes before the first."""
    asked, seconds = run.engine.compile, (predicted or {}).get("seconds")
    if asked != "auto":
        reasons["compile"] = f"engine.compile = {str(asked).lower()}"
        return asked
    if world.device == "cpu":
        reasons["compile"] = "a CPU has faster kernels of ftsys' own"
        return False
    if total_steps is None or seconds is None:
        reasons["compile"] = "nobody knows how long the run takes"
        return False
    saved = total_steps * seconds * COMPILED_SAVES
    pays = saved > COMPILE_SECONDS
    told = f"{total_steps:,} steps of {seconds * 1e3:,.0f} ms would save {saved:,.0f} s, compiling takes"
    reasons["compile"] = f"{told} {COMPILE_SECONDS:.0f} s; both supposed, not measured"
    return pays


def usual_micro_tokens(run: RunConfig, world: World) -> int:
    """The micro-batch that a device computes best, in tokens; at least one example."""
    budget = CUDA_MICRO_TOKENS if world.device == "cuda" else CPU_MICRO_TOKENS
    return max(budget, run.data.max_length)


def step_counts(run: RunConfig, rows: int | None, steps_per_epoch: int | None) -> tuple[int | None, int | None]:
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


def impossible(run: RunConfig, world: World, backend: str, precision: str, rows: int | None) -> list[str]:
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


def notes_on(run: RunConfig, world: World, precision: str) -> list[str]:
    """What a user may want to know of this world and nothing forbids."""
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
