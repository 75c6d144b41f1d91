"""Reads and sets the whole state of a live model and its optimizer, whatever engine holds it.

`export_state` gathers fp32 master weights and optimizer moments under the plain model's names; `import_state` puts them
into any other engine, world size or ZeRO stage. Both are collective. On the same engine and world a run continues bit
for bit: nothing is rounded, since 16-bit copies are made from the fp32 masters exactly as the engine's own step makes
them. The caller handles random generators, schedulers and accelerate's GradScaler.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ftsys.distributed import rank
from ftsys.errors import CheckpointError
from ftsys.train.checkpoint import deepspeed_layout
from ftsys.train.checkpoint.manifest import OPTIMIZER
from ftsys.train.checkpoint.optimizer_layout import (
    Layout,
    Owner,
    Piece,
    is_engine,
    is_whole,
    moments_of,
    numbers_of,
    persistent_buffers,
    plain_layout,
    shape_of,
    unwrap,
)
from ftsys.train.checkpoint.param_groups import group_mismatches, read_groups, write_groups
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.transfer import Form, Source, gather, widened

__all__ = ["FullState", "export_state", "import_state"]


def export_state(model: Any, optimizer: Any = None) -> FullState:
    """Gather the whole state on rank 0; other ranks get an empty one. Collective.

    `model` is a torch module, a DDP or compiled one, or a DeepSpeed engine, whose own optimizer is then taken;
    `optimizer` is a torch optimizer or accelerate's wrapper of one, or None for the weights alone. The result shares no
    memory with the model. Raises CheckpointError for an engine whose state cannot be read.
    """
    layout, state = layout_of(model, optimizer), FullState()
    if not layout.partitioned and rank() > 0:
        return state
    with torch.no_grad():
        for index in range(len(layout.owners)):
            _read_owner(layout, index, state)
        for name in layout.unowned():
            _read_unowned(layout, name, state)
        if rank() > 0:
            return FullState()
        for name, buffer in persistent_buffers(layout.module).items():
            state.buffers[name] = buffer.detach().to("cpu", copy=True)
    state.weights = {name: state.weights[name] for name in layout.parameters}
    state.groups = read_groups(layout)
    state.counters = deepspeed_layout.read_counters(layout.engine) if layout.engine is not None else {}
    return state


def import_state(model: Any, optimizer: Any = None, state: FullState | None = None) -> None:
    """Put `state` into the model and its optimizer, before their first step or after any. Collective.

    Rank 0 must hold the state; where every rank holds it (read from one shared folder), no tensor is sent. Arguments as
    for `export_state`. Floating-point tensors are converted to the types that the model and its optimizer have. Raises
    CheckpointError on all ranks, before any weight is changed, when names, shapes or other types differ from the
    model's, or the optimizer keeps other moments.
    """
    layout, source = layout_of(model, optimizer), Source(state)
    with torch.no_grad():
        for index in range(len(layout.owners)):
            _prepare_owner(layout, index, source)
        wrong = [*_mismatches(layout, source), *group_mismatches(layout, source.groups)]
        if wrong:
            raise CheckpointError("\n".join(wrong))
        for index in range(len(layout.owners)):
            _write_owner(layout, index, source)
        for name in layout.unowned():
            deepspeed_layout.write_live(layout.parameters[name], source.tensor("weights", name))
        for name, buffer in persistent_buffers(layout.module).items():
            if source.has("buffers", name):
                buffer.copy_(source.tensor("buffers", name))
    write_groups(layout, source.groups)
    if layout.engine is not None:
        deepspeed_layout.write_counters(layout.engine, source.counters)


def layout_of(model: Any, optimizer: Any) -> Layout:
    """Return where the optimizer keeps each parameter; arguments as for `export_state`."""
    model = getattr(model, "_orig_mod", model)
    if is_engine(model):
        return deepspeed_layout.engine_layout(model)
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    return plain_layout(unwrap(model), optimizer)


def _read_owner(layout: Layout, index: int, state: FullState) -> None:
    owner, names = layout.owners[index], layout.names_in(index)
    _assemble(layout, index, owner.tensor, state.weights)
    for key, tensor in sorted(moments_of(owner).items()):
        target = state.moments.setdefault(key, {})
        if tensor.shape == owner.tensor.shape:
            _assemble(layout, index, tensor, target)
        elif is_whole(layout, index):
            # Factored second moments: neither the parameter's shape nor a number, but of one parameter alone.
            target[names[0]] = widened(tensor.detach()).to("cpu", copy=True)
        else:
            raise CheckpointError(
                f"{type(owner.optimizer).__name__} keeps {key!r} of shape {tuple(tensor.shape)} for many parameters at "
                "once, which cannot be told apart: use AdamW"
            )
    numbers = numbers_of(owner)
    for name in names if numbers else []:
        state.numbers[name] = dict(numbers)


def _assemble(layout: Layout, index: int, mine: Tensor, target: dict[str, Tensor]) -> None:
    """Put each whole parameter into `target`, from its pieces in one owner's flat tensor on every rank."""
    flats = gather(mine.reshape(-1)) if layout.partitioned else [widened(mine.detach()).reshape(-1).to("cpu")]
    if flats is None:
        return
    names = layout.names_in(index)
    wholes = {name: torch.empty(shape_of(layout.parameters[name]), dtype=flats[0].dtype) for name in names}
    filled = dict.fromkeys(names, 0)
    for number, flat in enumerate(flats):
        for piece in layout.pieces_of(number, index):
            whole = wholes[piece.name].view(-1)
            whole[piece.start : piece.start + piece.count] = flat[piece.offset : piece.offset + piece.count]
            filled[piece.name] += piece.count
    short = [name for name in names if filled[name] != wholes[name].numel()]
    if short:
        raise CheckpointError(f"the ranks hold only parts of {short[0]!r}: this DeepSpeed version keeps it elsewhere")
    target.update(wholes)


def _read_unowned(layout: Layout, name: str, state: FullState) -> None:
    parameter = layout.parameters[name]
    part = deepspeed_layout.part_of(parameter)
    parts = gather(part) if part is not None else [widened(parameter.detach()).reshape(-1).to("cpu", copy=True)]
    if parts is not None:
        shape = shape_of(parameter)
        state.weights[name] = torch.cat(parts)[: shape.numel()].view(shape)


def _prepare_owner(layout: Layout, index: int, source: Source) -> None:
    """Create the optimizer's state for an owner whose parameters have a saved one, and drop it for others."""
    owner = layout.owners[index]
    if not any(name in source.numbers or source.kinds(name) for name in layout.names_in(index)):
        owner.optimizer.state.pop(owner.tensor, None)
    elif not owner.state:
        _create_state(owner)


def _create_state(owner: Owner) -> None:
    """Make the optimizer create its state for one tensor, by a step with a zero gradient at a zero learning rate.

    torch.distributed.checkpoint does the same: only the optimizer knows which moments it keeps, and their types. The
    caller overwrites the counters and weights that this step changed.
    """
    groups = owner.optimizer.param_groups
    before = [group["params"] for group in groups]
    rate, gradient = groups[owner.group]["lr"], owner.tensor.grad
    for index, group in enumerate(groups):
        group["params"] = [owner.tensor] if index == owner.group else []
    groups[owner.group]["lr"] = torch.zeros_like(rate) if isinstance(rate, Tensor) else 0.0
    owner.tensor.grad = torch.zeros_like(owner.tensor)
    try:
        # The class's own step: a scheduler counts the calls of the one on the instance.
        type(owner.optimizer).step(owner.optimizer)
    finally:
        owner.tensor.grad = gradient
        groups[owner.group]["lr"] = rate
        for group, params in zip(groups, before, strict=True):
            group["params"] = params


def _mismatches(layout: Layout, source: Source) -> list[str]:
    wrong = []
    missing = layout.parameters.keys() - source.names("weights")
    unknown = source.names("weights") - layout.parameters.keys()
    if missing or unknown:
        wrong.append(
            f"the checkpoint's parameters are not the model's: {_some(missing)} missing, {_some(unknown)} unknown; "
            "resume with the model that was saved"
        )
    for name in sorted(layout.parameters.keys() - missing):
        own = layout.parameters[name]
        wrong.extend(_misfit(repr(name), source.form("weights", name), (shape_of(own), own.dtype), "model"))
    for name, buffer in persistent_buffers(layout.module).items():
        if source.has("buffers", name):
            own_form = buffer.shape, buffer.dtype
            wrong.extend(_misfit(f"the buffer {name!r}", source.form("buffers", name), own_form, "model"))
    for index in range(len(layout.owners)):
        wrong.extend(_owner_mismatches(layout, index, source))
    return wrong


def _owner_mismatches(layout: Layout, index: int, source: Source) -> list[str]:
    owner, names = layout.owners[index], layout.names_in(index)
    saved, own = set().union(*(source.kinds(name) for name in names)), set(moments_of(owner))
    if saved != own:
        return [
            f"the checkpoint holds {_some(saved)} for {names[0]!r}, {type(owner.optimizer).__name__} keeps "
            f"{_some(own)}: resume with the optimizer that was saved"
        ]
    wrong = _moment_misfits(layout, index, source)
    for key in sorted({key for name in names for key in source.numbers.get(name, {})}):
        counts = {source.numbers[name][key]: name for name in names if key in source.numbers.get(name, {})}
        if len(counts) > 1:
            wrong.append(
                f"{key!r} differs between parameters ({', '.join(f'{n!r}: {c:g}' for c, n in counts.items())}), and "
                "this engine keeps one for all: resume with engine.zero_stage = 0 and the saved precision"
            )
        if key in own:
            wrong.append(f"{key!r} of {names[0]!r} is a number in the checkpoint and a tensor in the optimizer")
    return wrong


def _moment_misfits(layout: Layout, index: int, source: Source) -> list[str]:
    """Return a line for each saved moment of an owner that cannot be put into the optimizer's."""
    owner, whole, wrong = layout.owners[index], is_whole(layout, index), []
    for key, moment in sorted(moments_of(owner).items()):
        for name in (name for name in layout.names_in(index) if source.has(key, name)):
            # A factored moment has a shape of its own, and one in a flat owner that of its parameter.
            factored = whole and moment.shape != owner.tensor.shape
            shape = moment.shape if factored else shape_of(layout.parameters[name])
            what = f"{key!r} of {name!r} in {OPTIMIZER}"
            saved = source.form(key, name)
            wrong.extend(_misfit(what, saved, (shape, moment.dtype), "optimizer"))
            if saved[0] != shape and not whole:
                wrong[-1] += "; where it is factored, it cannot be cut over ranks: resume at engine.zero_stage = 0"
    return wrong


def _misfit(what: str, saved: Form, own: Form, where: str) -> list[str]:
    """Return a line where a saved tensor has another shape, or a type that would change its meaning.

    Floating types are converted: a checkpoint holds float32 or wider, whatever the engine keeps.
    """
    if saved[0] != own[0]:
        return [f"{what} has shape {tuple(saved[0])} in the checkpoint and {tuple(own[0])} in the {where}"]
    if saved[1] != own[1] and not (saved[1].is_floating_point and own[1].is_floating_point):
        return [f"{what} has type {saved[1]} in the checkpoint and {own[1]} in the {where}"]
    return []


def _write_owner(layout: Layout, index: int, source: Source) -> None:
    owner, state = layout.owners[index], layout.owners[index].state
    pieces = {piece.name: piece for piece in layout.pieces_of(rank(), index)}
    moments = moments_of(owner)
    for tensor in moments.values():
        # Padding, and parameters without a saved state, start as in a fresh optimizer.
        tensor.zero_()
    for name in layout.names_in(index):
        for key in sorted(moments):
            if source.has(key, name):
                _put(moments[key], pieces.get(name), source.tensor(key, name))
        whole = source.tensor("weights", name)
        _put(owner.tensor, pieces.get(name), whole)
        deepspeed_layout.write_live(layout.parameters[name], whole)
        for key, value in source.numbers.get(name, {}).items():
            _put_number(state, key, value)


def _put(target: Tensor, piece: Piece | None, whole: Tensor) -> None:
    """Write this rank's piece of a whole parameter into its owner or moment; do nothing where it has none."""
    if piece is None:
        return
    if target.dim() > 1 or piece.count == target.numel() == whole.numel():
        target.copy_(whole.view(target.shape))
    else:
        flat = whole.reshape(-1)[piece.start : piece.start + piece.count]
        target[piece.offset : piece.offset + piece.count].copy_(flat)


def _put_number(state: dict[str, Any], key: str, value: float) -> None:
    old = state.get(key)
    if isinstance(old, Tensor):
        old.fill_(value)
    else:
        state[key] = int(value) if isinstance(old, int) else value


def _some(names: set[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:3])
    return f"{len(names)} ({shown}{', ...' if len(names) > 3 else ''})" if names else "none"
