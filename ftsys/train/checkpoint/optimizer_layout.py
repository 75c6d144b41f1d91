"""Describes where a live optimizer keeps each parameter's master weights: pieces of it, in tensors called owners.

All engines are described by the same classes, so that one code reads and writes them all. A plain torch optimizer has
one owner for each parameter; DeepSpeed has one flat owner for each group, partitioned over the ranks (ZeRO 1 to 3) or
not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer


@dataclass(frozen=True)
class Owner:
    """A tensor that an optimizer updates: the key of `optimizer.state`, a member of its parameter group `group`."""

    tensor: Tensor
    optimizer: Optimizer
    group: int

    @property
    def state(self) -> dict[str, Any]:
        """State that the optimizer keeps for this tensor; empty before its first step."""
        return self.optimizer.state.get(self.tensor, {})


@dataclass(frozen=True)
class Piece:
    """`count` elements of the flattened parameter `name` from `start`, kept in owner `owner` from `offset`."""

    name: str
    start: int
    count: int
    owner: int
    offset: int


@dataclass
class Layout:
    """All of a live model and its optimizer, as this rank sees it.

    `pieces` has one list for each rank when `partitioned`; else one list, the same on every rank. Owner i has the same
    number of elements on every rank. A parameter without a piece is not optimized: its value is the model's own.
    """

    module: Module
    parameters: dict[str, Parameter]
    owners: list[Owner]
    pieces: list[list[Piece]]
    partitioned: bool
    optimizers: list[Optimizer]
    engine: Any = None

    def names_in(self, owner: int) -> list[str]:
        """Return the parameters of which any rank keeps a piece in that owner, in the owner's order."""
        return list(dict.fromkeys(piece.name for rank in self.pieces for piece in rank if piece.owner == owner))

    def pieces_of(self, rank: int, owner: int) -> list[Piece]:
        """Return the pieces that rank `rank` keeps in its owner `owner`."""
        mine = self.pieces[rank if self.partitioned else 0]
        return [piece for piece in mine if piece.owner == owner]

    def shard_of(self, rank: int, ranks: int) -> list[Piece]:
        """Return the pieces that rank `rank` of `ranks` saves: its partition, or an equal part of what all keep."""
        if self.partitioned:
            return self.pieces[rank]
        total = sum(piece.count for piece in self.pieces[0])
        first, last, at, found = rank * total // ranks, (rank + 1) * total // ranks, 0, []
        for piece in self.pieces[0]:
            begin, end = max(first - at, 0), min(last - at, piece.count)
            if begin < end:
                cut = replace(piece, start=piece.start + begin, count=end - begin, offset=piece.offset + begin)
                found.append(cut)
            elif piece.count == 0 and rank == 0:
                found.append(piece)
            at += piece.count
        return found

    def unowned(self) -> list[str]:
        """Return the parameters that no optimizer updates: frozen, empty, or left out of its groups."""
        owned = {piece.name for rank in self.pieces for piece in rank}
        return [name for name in self.parameters if name not in owned]


def shape_of(parameter: Parameter) -> torch.Size:
    """Return the whole parameter's shape, also where ZeRO 3 has left an empty tensor in its place."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def unwrap(model: Any) -> Module:
    """Return the model itself, out of DDP, torch.compile and a DeepSpeed engine."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, DistributedDataParallel) or is_engine(model):
            model = model.module
        else:
            return model


def is_engine(model: Any) -> bool:
    """Return True for a DeepSpeed engine, without importing DeepSpeed."""
    return any(
        base.__name__ == "DeepSpeedEngine" and base.__module__.startswith("deepspeed.") for base in type(model).__mro__
    )


def named_parameters(module: Module) -> dict[str, Parameter]:
    """Return the parameters by their Hugging Face names; tied ones under their first name alone."""
    return {name.replace("_orig_mod.", ""): parameter for name, parameter in module.named_parameters()}


def frozen_weights(module: Module) -> dict[str, Tensor]:
    """Return the frozen parameters by name, as they are now: a training in bf16 rounds the model's own."""
    return {name: tensor.detach() for name, tensor in named_parameters(module).items() if not tensor.requires_grad}


def persistent_buffers(module: Module) -> dict[str, Tensor]:
    """Return the buffers that belong to the state dict, by name."""
    found = {}
    for prefix, child in module.named_modules():
        for name, buffer in child._buffers.items():
            if buffer is not None and name not in child._non_persistent_buffers_set:
                path = f"{prefix}.{name}" if prefix else name
                found[path.replace("_orig_mod.", "")] = buffer
    return found


def plain_layout(module: Module, optimizer: Optimizer | None) -> Layout:
    """Return the layout of an optimizer of the model's parameters, or of masters of them: the same on every rank."""
    parameters = named_parameters(module)
    layout = Layout(module, parameters, [], [[]], False, [optimizer] if optimizer is not None else [])
    if optimizer is not None:
        groups = [group["params"] for group in optimizer.param_groups]
        add_whole(layout, optimizer, getattr(optimizer, "live", groups), groups)
    return layout


def add_whole(
    layout: Layout, optimizer: Optimizer, live: Iterable[Iterable[Tensor]], masters: Iterable[Iterable[Tensor]]
) -> None:
    """Add one owner for each parameter: `masters` has the optimizer's tensor for each model parameter in `live`."""
    names = {id(parameter): name for name, parameter in layout.parameters.items()}
    for group, (group_live, group_masters) in enumerate(zip(live, masters, strict=True)):
        for parameter, master in zip(group_live, group_masters, strict=True):
            if id(parameter) in names and parameter.requires_grad:
                piece = Piece(names[id(parameter)], 0, parameter.numel(), len(layout.owners), 0)
                layout.owners.append(Owner(master, optimizer, group))
                layout.pieces[0].append(piece)


def _is_number(key: str, value: Any, owner: Owner) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and (key == "step" or value.shape != owner.tensor.shape)
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers_of(owner: Owner) -> dict[str, float]:
    """Return the optimizer's counters for an owner, as {"step": 3.0}."""
    numbers = {key: value for key, value in owner.state.items() if _is_number(key, value, owner)}
    return {key: value.item() if isinstance(value, Tensor) else value for key, value in numbers.items()}


def moments_of(owner: Owner) -> dict[str, Tensor]:
    """Return the tensors that the optimizer keeps for an owner, by name."""
    return {
        key: value
        for key, value in owner.state.items()
        if isinstance(value, Tensor) and not _is_number(key, value, owner)
    }


def is_whole(layout: Layout, index: int) -> bool:
    """Return True where the owner is one whole parameter, the same on every rank."""
    pieces = layout.pieces_of(0, index)
    return not layout.partitioned and len(pieces) == 1 and pieces[0].count == layout.owners[index].tensor.numel()
