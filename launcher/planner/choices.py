"""Makes the choices of a plan that need no memory model, each with its reason, and checks them against the world.

Pure.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from ftsys.config import RunConfig, lowest_stage
from launcher.planner.cost.activations import Precision
from launcher.planner.decision import Decision
from launcher.planner.world import World

CPU_MICRO_TOKENS, CUDA_MICRO_TOKENS = 4_096, 16_384
"""Real tokens of a micro-batch by default."""

Backend = Literal["deepspeed", "ddp", "none"]
Order = Literal["random", "length_grouped"]


def settled_by_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a user's DeepSpeed file gives for choices that a run file may leave "auto".

    Keys: "zero_stage" (0 to 3) and "precision" ("bf16", "fp16" or "fp32"); absent where the file leaves them open.
    """

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


def zero_stage(run: RunConfig, settled: Mapping[str, Any]) -> Decision[int]:
    """Choose the ZeRO stage without knowing how much memory the model needs."""
    stage, offload = run.engine.zero_stage, run.engine.offload
    if stage != "auto":
        return Decision(stage, f"engine.zero_stage = {stage}")
    if "zero_stage" in settled:
        named = int(settled["zero_stage"])
        return Decision(named, f"the DeepSpeed file {run.engine.deepspeed!r} says {named}")
    if offload != "none":
        lowest = lowest_stage(offload)
        return Decision(lowest, f"engine.offload = {offload!r} needs stage {lowest}")
    return Decision(0, "an encoder's weights, gradients and optimizer state fit one device, so nothing is split")


def backend_of(run: RunConfig, world: World, stage: int) -> Decision[Backend]:
    """Choose the engine that averages gradients over the ranks."""
    backend = run.engine.backend
    if backend != "auto":
        return Decision(backend, f"engine.backend = {backend!r}")
    if stage:
        return Decision("deepspeed", f"ZeRO {stage} is DeepSpeed's")
    if run.engine.deepspeed:
        return Decision("deepspeed", "engine.deepspeed names a DeepSpeed file")
    if world.launcher == "deepspeed":
        return Decision("deepspeed", "started by the deepspeed launcher")
    if world.ranks > 1:
        return Decision("ddp", f"{world.ranks} ranks without ZeRO")
    return Decision("none", "a single process has no gradients to average")


def precision_of(run: RunConfig, world: World, settled: Mapping[str, Any]) -> Decision[Precision]:
    """Choose the number format of weights and activations."""
    precision = run.engine.precision
    if precision != "auto":
        return Decision(precision, f"engine.precision = {precision!r}")
    if run.engine.deepspeed and "precision" in settled:
        chosen: Precision = settled["precision"]
        return Decision(chosen, f"the DeepSpeed file {run.engine.deepspeed!r} says {chosen}")
    better: Precision = "bf16" if world.bf16_supported else "fp32"
    if world.rates is not None:
        return Decision(better, f"this CPU multiplies matrices at {world.rates}, as measured")
    computes = "computes bf16" if world.bf16_supported else "computes bf16 slowly or not at all"
    return Decision(better, f"the {_device_word(world)} {computes}")


def checkpointing_of(run: RunConfig) -> Decision[bool]:
    """Choose whether activations are recomputed, without knowing how much memory the model needs."""
    asked = run.engine.activation_checkpointing
    if asked == "auto":
        return Decision(False, "activations are kept unless a GPU's memory asks for less")
    return Decision(asked, f"engine.activation_checkpointing = {str(asked).lower()}")


def micro_tokens_of(run: RunConfig, world: World) -> Decision[int]:
    """Choose the tokens of a micro-batch, without knowing how much memory the model needs."""
    asked = run.batch.micro_tokens
    if asked == "auto":
        usual = usual_micro_tokens(run, world)
        return Decision(usual, f"{usual} on a {_device_word(world)}, at least data.max_length = {run.data.max_length}")
    return Decision(asked, f"batch.micro_tokens = {asked}")


def order_of(run: RunConfig, packed: bool) -> Decision[Order]:
    """Choose the order of examples in an epoch."""
    if run.batch.order != "auto":
        return Decision(run.batch.order, f"batch.order = {run.batch.order!r}")
    if packed:
        return Decision("random", "packed batches hold no padding")
    return Decision("length_grouped", "padded batches of similar lengths hold less padding")


def compiled(run: RunConfig) -> Decision[bool]:
    """Choose torch.compile only where it is asked for: ftsys' own kernels fuse the same operations."""
    asked = run.engine.compile
    if asked != "auto":
        return Decision(asked, f"engine.compile = {str(asked).lower()}")
    return Decision(False, "ftsys' own kernels fuse the same operations")


def _device_word(world: World) -> str:
    return "GPU" if world.device == "cuda" else "CPU"


def usual_micro_tokens(run: RunConfig, world: World) -> int:
    """Return the default tokens of a micro-batch on the device; at least one example of the largest length."""
    budget = CUDA_MICRO_TOKENS if world.device == "cuda" else CPU_MICRO_TOKENS
    return max(budget, run.data.max_length)


def step_counts(run: RunConfig, rows: int | None, steps_per_epoch: int | None) -> tuple[int | None, int | None]:
    """Return (steps per epoch, total steps), each None where it cannot be counted.

    An epoch's last step takes the remaining examples, so that each example is seen exactly once.
    """
    if steps_per_epoch is None and rows is not None and run.batch.global_size is not None:
        steps_per_epoch = math.ceil(rows / run.batch.global_size)
    if run.train.max_steps is not None:
        return steps_per_epoch, run.train.max_steps
    if steps_per_epoch is None or run.train.epochs is None:
        return steps_per_epoch, None
    return steps_per_epoch, math.ceil(run.train.epochs * steps_per_epoch)


def warmup_steps(asked: float, total_steps: int | None) -> int | None:
    """Count warm-up steps as transformers does: a number below 1 is a fraction of all steps, rounded up."""
    if asked >= 1 or asked == 0:
        return int(asked)
    return None if total_steps is None else math.ceil(total_steps * asked)


def impossible(run: RunConfig, world: World, backend: str, precision: str, rows: int | None) -> list[str]:
    """Return a message for each setting that cannot work in this world."""
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
    """Return remarks on settings that work in this world but may surprise."""
    notes: list[str] = []
    size = run.batch.global_size
    if size is not None and size % world.ranks:
        base, more = divmod(size, world.ranks)
        notes.append(f"{size} examples over {world.ranks} ranks: {more} rank(s) have {base + 1}, the others {base}")
    if precision == "bf16" and not world.bf16_supported:
        known = f"was measured at {world.rates}" if world.rates else "has no bf16 arithmetic of its own"
        notes.append(f"the {_device_word(world)} {known}: expect bf16 to be slower than fp32")
    if world.device == "cpu" and run.engine.offload != "none":
        notes.append(f"engine.offload = {run.engine.offload!r} gains nothing where the device is the CPU itself")
    return notes
