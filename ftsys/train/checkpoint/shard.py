"""Copies this rank's shard of a live model and its optimizer, for a checkpoint that all ranks write at once.

Nothing is sent between ranks. A tensor that ZeRO has partitioned is written by its owners; of a tensor that every rank
holds, each rank writes an equal part.
"""

from typing import Any

import torch
from torch import Tensor

from ftsys.distributed import rank, world_size
from ftsys.train.checkpoint import deepspeed_layout
from ftsys.train.checkpoint.optimizer_layout import (
    Layout,
    Piece,
    moments_of,
    numbers_of,
    persistent_buffers,
    shape_of,
)
from ftsys.train.checkpoint.param_groups import read_groups
from ftsys.train.checkpoint.state_dict import layout_of
from ftsys.train.checkpoint.training_state import FullState, label
from ftsys.train.checkpoint.transfer import widened
from ftsys.train.perf.staging import StagingBuffers


def export_shard(model: Any, optimizer: Any = None, buffers: StagingBuffers | None = None) -> FullState:
    """Return this rank's shard as copies on the CPU; rank 0's also has all that is not a tensor. Every rank calls it.

    Arguments as for `export_state`. The copies are made in `buffers`, which says how to wait for those of a GPU;
    without `buffers` they are complete. Raises CheckpointError for an engine whose state cannot be read.
    """
    if buffers is None:
        own = StagingBuffers()
        state = export_shard(model, optimizer, own)
        own.wait()
        return state
    layout = layout_of(model, optimizer)
    buffers.begin()
    state = FullState(moments={key: {} for owner in layout.owners for key in moments_of(owner)})
    with torch.no_grad():
        for piece in layout.shard_of(rank(), world_size()):
            _copy_piece(layout, piece, state, buffers)
        for name in layout.unowned():
            _copy_unowned(layout, name, state, buffers)
        if rank() == 0:
            _add_facts(layout, state)
    return state


def _copy_piece(layout: Layout, piece: Piece, state: FullState, buffers: StagingBuffers) -> None:
    owner = layout.owners[piece.owner]
    shape = shape_of(layout.parameters[piece.name])
    own_shape = shape if piece.count == shape.numel() else torch.Size([piece.count])
    key = label(piece.name, piece.start, piece.count, shape.numel())
    for kind, tensor in {"weights": owner.tensor, **moments_of(owner)}.items():
        target = state.weights if kind == "weights" else state.moments[kind]
        if tensor.shape == owner.tensor.shape:
            flat = tensor.detach().reshape(-1)[piece.offset : piece.offset + piece.count]
            target[key] = _copied(flat, kind, key, own_shape, buffers)
        elif piece.start == 0:  # factored second moments have another shape: one rank writes them whole
            target[piece.name] = widened(tensor.detach()).to("cpu", copy=True)


def _copy_unowned(layout: Layout, name: str, state: FullState, buffers: StagingBuffers) -> None:
    """Copy a parameter that no optimizer updates: on rank 0, or on each rank its part under ZeRO 3."""
    parameter, shape = layout.parameters[name], shape_of(layout.parameters[name])
    part = deepspeed_layout.part_of(parameter)
    if part is None:
        if rank() == 0:
            state.weights[name] = _copied(parameter.detach().reshape(-1), "weights", name, shape, buffers)
        return
    start = rank() * part.ds_numel
    count = min(part.numel(), shape.numel() - start)
    if count > 0:
        own_shape = shape if count == shape.numel() else torch.Size([count])
        key = label(name, start, count, shape.numel())
        state.weights[key] = _copied(part.detach().reshape(-1)[:count], "weights", key, own_shape, buffers)


def _copied(flat: Tensor, kind: str, key: str, shape: torch.Size, buffers: StagingBuffers) -> Tensor:
    """Return a copy on the CPU in a staging buffer, 16-bit floats widened to float32; exact."""
    return buffers.copy(flat, kind, key, shape, widened(flat[:0]).dtype)


def _add_facts(layout: Layout, state: FullState) -> None:
    for index, owner in enumerate(layout.owners):
        numbers = numbers_of(owner)
        for name in layout.names_in(index) if numbers else []:
            state.numbers[name] = dict(numbers)
    for name, buffer in persistent_buffers(layout.module).items():
        state.buffers[name] = buffer.detach().to("cpu", copy=True)
    state.shapes = {name: list(shape_of(parameter)) for name, parameter in layout.parameters.items()}
    state.groups = read_groups(layout)
    state.counters = deepspeed_layout.read_counters(layout.engine) if layout.engine is not None else {}
