"""Defines the state of a model and its optimizer as a checkpoint holds it, whatever the world size and engine.

A rank's shard has the same form. A part of a tensor is named by the tensor and the elements of the flattened whole that
it has, in the form of a Python slice: "encoder.weight[512:1024]".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NotRequired

from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from ftsys.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

_SLICE = re.compile(r"(.+)\[(\d+):(\d+)\]")


@dataclass
class FullState:
    """A model and its optimizer on the CPU, keyed by the plain model's parameter names; empty on ranks above 0."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    """Master weights by parameter, each of the parameter's shape; fp32, or fp64 where the model is."""
    buffers: dict[str, Tensor] = field(default_factory=dict)
    """Buffers of the state dict, in their own types."""
    moments: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """By moment ("exp_avg"), then parameter: of its shape, fp32 or fp64. Empty before the first step."""
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    """Counters of the optimizer by parameter, as {"step": 3.0}."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    """The numbers of each parameter group (lr, betas, ...) and the names of its "parameters"."""
    counters: dict[str, Any] = field(default_factory=dict)
    """Counters of the engine: its steps and the fp16 loss scale."""
    shapes: dict[str, list[int]] = field(default_factory=dict)
    """Shapes of the whole parameters, where this is a rank's shard."""


class _Group(TypedDict):
    """A parameter group: the names of its parameters, and numbers of any name."""

    parameters: list[str]


class StateFacts(TypedDict):
    """All of a `FullState` that is not a tensor, as state.json holds it. `weights_file` has the weights."""

    buffers: list[str]
    moments: list[str]
    numbers: dict[str, dict[str, float]]
    groups: list[_Group]
    counters: dict[str, Any]
    shapes: NotRequired[dict[str, list[NonNegativeInt]]]
    weights_file: NotRequired[str]


class _CallbackState(TypedDict):
    """The state of a callback: arguments of its class, and attributes that transformers then sets."""

    args: NotRequired[dict[str, Any]]
    attributes: NotRequired[dict[str, Any]]


class TrainerFacts(TypedDict):
    """The TrainerState of transformers, as trainer_state.json holds it. Numbers of steps may be 1.0."""

    global_step: NonNegativeInt
    epoch: NotRequired[float | None]
    max_steps: NotRequired[int]
    logging_steps: NotRequired[float]
    eval_steps: NotRequired[float]
    save_steps: NotRequired[float]
    train_batch_size: NotRequired[int | None]
    num_train_epochs: NotRequired[float]
    num_input_tokens_seen: NotRequired[int]
    total_flos: NotRequired[float]
    log_history: NotRequired[list[dict[str, Any]] | None]
    best_metric: NotRequired[float | None]
    best_global_step: NotRequired[int | None]
    best_model_checkpoint: NotRequired[str | None]
    is_local_process_zero: NotRequired[bool]
    is_world_process_zero: NotRequired[bool]
    is_hyper_param_search: NotRequired[bool]
    trial_name: NotRequired[str | None]
    trial_params: NotRequired[dict[str, Any] | None]
    stateful_callbacks: NotRequired[dict[str, _CallbackState | list[_CallbackState]] | None]


def label(name: str, start: int, count: int, whole: int) -> str:
    """Return the name under which a shard holds `count` of the `whole` elements of a tensor, from `start`."""
    return name if count == whole else f"{name}[{start}:{start + count}]"


def joined(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Join the parts in all ranks' shards; returns whole tensors by name. Raises CheckpointError for a missing part.

    `shapes` has the shapes of the whole tensors.
    """
    import torch

    wholes: dict[str, Tensor] = {}
    parts: dict[str, list[tuple[int, Tensor]]] = {}
    for key, tensor in tensors.items():
        cut = _SLICE.fullmatch(key)
        if cut is None:
            wholes[key] = tensor
        else:
            parts.setdefault(cut[1], []).append((int(cut[2]), tensor))
    for name, found in parts.items():
        found.sort(key=lambda part: part[0])
        at = 0
        for start, part in found:
            if start != at:
                raise CheckpointError(f"elements {at} to {start} of {name!r} are in no file: take another checkpoint")
            at += part.numel()
        if name not in shapes or math.prod(shapes[name]) != at:
            shape = shapes.get(name, "no shape")
            raise CheckpointError(f"{name!r} has {at} elements in its files, and {shape!r}: take another checkpoint")
        wholes[name] = torch.cat([part.reshape(-1) for _, part in found]).view(torch.Size(shapes[name]))
    return wholes
