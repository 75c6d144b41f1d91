"""Moves tensors between ranks: parts to rank 0 for a save, whole tensors from rank 0 for a load."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from ftsys.distributed import any_rank, broadcast_json, collective_device, rank, world_size
from ftsys.errors import CheckpointError
from ftsys.files.json_safe import json_safe
from ftsys.train.checkpoint.training_state import FullState

CHUNK_ELEMENTS = 1 << 26
"""Elements that a rank sends at once, so that rank 0's device holds little more than one chunk of each rank."""

_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
"""The types of tensors by the names that torch prints."""
Form = tuple[torch.Size, torch.dtype]
"""The shape and the type of a tensor."""


def widened(tensor: Tensor) -> Tensor:
    """Return a 16-bit float tensor as fp32, any other unchanged; exact."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def gather(mine: Tensor) -> list[Tensor] | None:
    """Return every rank's flat tensor, all of the same length, on the CPU of rank 0; None elsewhere. Collective.

    The tensors are copies, 16-bit floats widened.
    """
    mine = mine.detach()
    if world_size() == 1:
        return [widened(mine).to("cpu", copy=True)]
    first = rank() == 0
    wholes = [torch.empty(mine.numel(), dtype=widened(mine[:0]).dtype) for _ in range(world_size() if first else 0)]
    for start in range(0, mine.numel(), CHUNK_ELEMENTS):
        part = widened(mine[start : start + CHUNK_ELEMENTS]).to(collective_device()).contiguous()
        received = [torch.empty_like(part) for _ in range(world_size())] if first else None
        dist.gather(part, received)
        for whole, chunk in zip(wholes, received or [], strict=True):
            whole[start : start + CHUNK_ELEMENTS].copy_(chunk)
    return wholes if first else None


class Source:
    """A FullState that all ranks can read: their own copy where every rank has the same one, else sent by rank 0.

    The constructor and `tensor` are collective: every rank asks for the same tensors in the same order.
    """

    def __init__(self, state: FullState | None) -> None:
        self._state = state if state is not None and state.weights else None
        mine = _describe(self._state) if self._state is not None else None
        theirs = broadcast_json(mine)
        if theirs is None:
            raise CheckpointError("rank 0 holds no state to load: read the checkpoint there before import_state")
        self.forms: dict[tuple[str, str], Form] = {
            (kind, name): (torch.Size(shape), _DTYPES[dtype]) for kind, name, shape, dtype in theirs["shapes"]
        }
        self.numbers: dict[str, dict[str, float]] = theirs["numbers"]
        self.groups: list[dict[str, Any]] = theirs["groups"]
        self.counters: dict[str, Any] = theirs["counters"]
        self._everywhere = not any_rank(mine != theirs, collective_device())

    def has(self, kind: str, name: str) -> bool:
        """Return True where there is a tensor of that kind ("weights", "buffers", or a moment's name) for that name."""
        return (kind, name) in self.forms

    def names(self, kind: str) -> set[str]:
        """Return the names of all tensors of that kind."""
        return {name for found, name in self.forms if found == kind}

    def kinds(self, name: str) -> set[str]:
        """Return the names of the moments of that parameter."""
        return {kind for kind, found in self.forms if found == name} - {"weights", "buffers"}

    def form(self, kind: str, name: str) -> Form:
        """Return the shape and type of a tensor for which `has` is True."""
        return self.forms[kind, name]

    def tensor(self, kind: str, name: str) -> Tensor:
        """Return the whole tensor, on the CPU or on the device of the process group. Collective."""
        mine = _tensors(self._state)[kind, name] if self._state is not None else None
        if mine is not None and self._everywhere:
            return mine
        shape, dtype = self.forms[kind, name]
        sent = mine.to(collective_device()).contiguous() if mine is not None and rank() == 0 else None
        if sent is None:
            sent = torch.empty(shape, dtype=dtype, device=collective_device())
        dist.broadcast(sent, 0)
        return sent


def _tensors(state: FullState) -> dict[tuple[str, str], Tensor]:
    kinds = {"weights": state.weights, "buffers": state.buffers, **state.moments}
    return {(kind, name): tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}


def _describe(state: FullState) -> dict[str, Any]:
    """Return everything but the elements of the tensors, as JSON."""
    shapes = [(*key, tuple(tensor.shape), str(tensor.dtype)) for key, tensor in _tensors(state).items()]
    told = {"shapes": shapes, "numbers": state.numbers, "groups": state.groups, "counters": state.counters}
    described: dict[str, Any] = json_safe(told, finite=False)
    return described
