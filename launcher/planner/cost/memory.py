"""Predicts one rank's bytes at the peak of a training step, by part, for every engine that ftsys runs on. Pure.

The prediction is for the rank with the most memory, with every example as long as allowed, in any step after the first.
`ftsys bench memory` compares the predictions with measurements.
"""

from dataclasses import dataclass
from typing import Literal

from launcher.planner.cost.activations import (
    Arithmetic,
    Device,
    MicroBatch,
    Precision,
    arithmetic,
    backward_extra,
    forward_extra,
    in_trimmed_attention,
    saved_bytes,
)
from launcher.planner.cost.engine_memory import (
    EngineStep,
    Moment,
    Parts,
    plain_step,
    sizes_of,
    with_frozen,
    zero0_step,
    zero3_step,
    zero12_step,
)
from launcher.planner.model_shape import ModelShape


@dataclass(frozen=True)
class Setting:
    """The settings that a step's memory depends on, besides the model and the batch."""

    backend: Literal["deepspeed", "ddp", "none"]
    zero_stage: int
    precision: Precision
    offload: str
    checkpointing: bool
    """True where the backward pass recomputes activations layer by layer, False where they are kept."""
    ranks: int
    device: Device
    kernel: str = "auto"
    """The attention kernel (engine.kernels)."""
    optimizer: str = "adamw_torch_fused"

    @property
    def low_weights(self) -> bool:
        """Return True for 16-bit weights with float32 master weights: DeepSpeed's, or ftsys' own for torch's AdamW."""
        own = self.precision == "bf16" and self.optimizer.startswith("adamw_torch")
        return self.precision != "fp32" and (self.backend == "deepspeed" or own)


@dataclass(frozen=True)
class Memory:
    """The bytes of each part at the moment of peak memory. A part alone may be larger at another moment."""

    parts: Parts
    moment: Moment

    @property
    def total(self) -> int:
        """Return the bytes on the device."""
        return self.parts.total


def predicted_memory(shape: ModelShape, batch: MicroBatch, micro_batches: int, setting: Setting) -> Memory:
    """Predict the peak of a step of `micro_batches` micro-batches, each as large as `batch`."""
    return max(moments(shape, batch, micro_batches, setting), key=lambda memory: memory.total)


def moments(shape: ModelShape, batch: MicroBatch, micro_batches: int, setting: Setting) -> list[Memory]:
    """Predict the memory at each moment that may be a step's peak."""
    numbers = arithmetic(shape, setting.precision, setting.device, setting.low_weights, setting.kernel)
    engine = engine_step(shape, setting, several=micro_batches > 1)
    activations = _activations(shape, batch, numbers, setting.checkpointing)
    with_activations: tuple[tuple[Moment, Parts], ...] = (
        ("forward", engine.forward),
        ("backward", engine.backward),
        ("backward", engine.last_layer),
    )
    found = [
        Memory(engine.held + added + Parts(activations=amount), moment)
        for (moment, added), amount in zip(with_activations, activations, strict=True)
    ]
    return found + [Memory(engine.held + added, moment) for moment, added in engine.later]


def engine_step(shape: ModelShape, setting: Setting, several: bool) -> EngineStep:
    """Predict the bytes of a setting's engine; `several`: a step has more than one micro-batch."""
    frozen = (2 if setting.low_weights else 4) * shape.frozen_parameters
    shared = setting.ranks if setting.zero_stage == 3 else 1
    return with_frozen(_trained_step(shape, setting, several), frozen // shared)


def _trained_step(shape: ModelShape, setting: Setting, several: bool) -> EngineStep:
    sizes, on_cpu = sizes_of(shape, setting.ranks), setting.device == "cpu"
    weight = 2 if setting.low_weights else 4
    if setting.backend != "deepspeed":
        reduced = setting.backend == "ddp" and setting.ranks > 1
        # On a CPU the kernel of the update widens each number by itself.
        return plain_step(sizes, weight, reduced, several, widened=weight == 2 and not on_cpu)
    if setting.zero_stage == 0:
        return zero0_step(sizes, weight, several)
    if setting.zero_stage == 3:
        gathers = sizes_of(shape.unfrozen, setting.ranks)
        return zero3_step(sizes, gathers, weight, setting.ranks, setting.offload, scatter_copies=on_cpu)
    offloaded = setting.offload != "none"
    return zero12_step(sizes, setting.zero_stage, weight, several, not on_cpu, offloaded)


def _activations(
    shape: ModelShape, batch: MicroBatch, numbers: Arithmetic, checkpointing: bool
) -> tuple[int, int, int]:
    """Return the bytes at the end of the forward pass, at the start of the backward pass, and in its last layer."""
    parts = saved_bytes(shape, batch, numbers)
    each = parts.boundary if checkpointing else parts.layer
    stored, casts = (shape.layers - shape.trimmed_layers) * each + parts.outside, parts.weight_casts
    more, trimmed = backward_extra(shape, batch, numbers), in_trimmed_attention(shape, batch, numbers)
    recomputed = parts.layer + casts // max(1, shape.layers) if checkpointing else casts
    last = parts.outside + each + more + (recomputed if checkpointing else 0)
    forward = stored + casts + max(trimmed, forward_extra(shape, batch, numbers))
    return forward, stored + max(recomputed + more, casts + trimmed), last
