"""Computes linear layers that read the same tensor by one matrix product: queries, keys and values, gates and values.

Classes are replaced on the instances, and each layer keeps its own parameters. Before the first product, parameters
that own their memory are moved side by side into one block, of which they are views from then on; so the joint weight
costs no copy. Parameters that are views of something else, as DeepSpeed's, are concatenated for each product, unless
they happen to lie side by side. Where the view leaves the model, each parameter gets memory of its own again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ftsys.kernels.triton_layers.choice import in_triton
from ftsys.models.layout_slot import LayoutSlot

GROUPS = (
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
    ("query_proj", "key_proj", "value_proj"),
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
)
"""Names of sibling modules that are called with the same tensor, the first one first."""
_BLOCK = "_ftsys_block"
"""Attribute of the memory into which parameters were moved."""


class JointLinear(nn.Linear):
    """Computes the results of its whole group with the call of the first member, in Triton's batches."""

    group: "LinearGroup"

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's own name
        """Return (..., D') of (..., D), as `nn.Linear`."""
        layout = self.group.layout_slot.recent_layout
        if layout is None or not in_triton(layout.kernel, input) or not self.group.is_joinable():
            return self.alone(input)
        return self.group.result_of(self, input)

    def alone(self, input: Tensor) -> Tensor:  # noqa: A002
        """Compute this layer by itself."""
        return super().forward(input)


class LinearGroup:
    """Holds the members of a group, and their results between the first member's call and the last one's."""

    def __init__(self, members: Sequence[JointLinear], layout_slot: LayoutSlot) -> None:
        self.members, self.layout_slot = list(members), layout_slot
        self._read: Tensor | None = None
        self._waiting: dict[int, Tensor] = {}

    def result_of(self, member: JointLinear, read: Tensor) -> Tensor:
        """Return the member's result for the tensor `read`."""
        number = next(index for index, each in enumerate(self.members) if each is member)
        if number == 0:
            self._read, self._waiting = read, dict(enumerate(joint_product(read, self.members)))
        if self._read is not read or number not in self._waiting:
            return member.alone(read)
        result = self._waiting.pop(number)
        if not self._waiting:
            self._read = None
        return result

    def is_joinable(self) -> bool:
        """Return False if a library attends to the single modules: by hooks, or because it distributes parameters."""
        return not any(is_watched(member) or hasattr(member.weight, "ds_id") for member in self.members)

    def separate(self) -> None:
        """Give each member's parameters memory of their own, as they had it before the first joint product.

        Otherwise whoever saves one of them by itself writes the whole block, and safetensors' `save_model` refuses.
        """
        for member in self.members:
            for parameter in member.parameters():
                if hasattr(parameter.untyped_storage(), _BLOCK):
                    with torch.inference_mode(False):
                        parameter.data = parameter.detach().clone()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the results out of copies and pickles: they belong to one forward pass."""
        return self.__dict__ | {"_read": None, "_waiting": {}}


def is_watched(module: nn.Module) -> bool:
    """Return True if the module has hooks, which run only if the module itself is called."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


def join_linear_layers(model: nn.Module, layout_slot: LayoutSlot) -> None:
    """Join the layers of `model` that are in GROUPS and read rows of one width."""
    for module in model.modules():
        for names in GROUPS:
            members: list[Any] = [getattr(module, name, None) for name in names]
            if all(type(member) is nn.Linear for member in members) and _are_alike(members):
                group = LinearGroup(members, layout_slot)
                for member in members:
                    member.__class__, member.group = JointLinear, group


def linear_groups(model: nn.Module) -> list[LinearGroup]:
    """Return the groups of joined layers in `model`."""
    return [each.group for each in model.modules() if isinstance(each, JointLinear) and each is each.group.members[0]]


def _are_alike(members: Sequence[Any]) -> bool:
    kinds = {(each.in_features, each.bias is None, each.weight.dtype, each.weight.device) for each in members}
    return len(kinds) == 1


def joint_product(read: Tensor, members: Sequence[nn.Linear]) -> tuple[Tensor, ...]:
    """Return the results of `members` for `read` (..., D), which are views of one tensor's columns."""
    weights = [member.weight for member in members]
    biases = [member.bias for member in members if member.bias is not None]
    for parts in (weights, biases):
        place_side_by_side(parts)
    device = read.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else read.dtype
    results: tuple[Tensor, ...] = _JointProduct.apply(read, dtype, *weights, *biases)
    return results


class _JointProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, read: Tensor, dtype: torch.dtype, *parameters: Tensor) -> tuple[Tensor, ...]:
        weights, biases = _by_dimensions(parameters)
        rows_TD, weight_ED = read.reshape(-1, read.shape[-1]).to(dtype), side_by_side(weights).to(dtype)
        with torch.autocast(read.device.type, enabled=False):
            bias_E = side_by_side(biases).to(dtype) if biases else None
            results_TE = nn.functional.linear(rows_TD, weight_ED, bias_E)
        # The weights themselves are saved too, so that torch refuses a backward pass after one of them has changed.
        ctx.save_for_backward(rows_TD, weight_ED, *weights)
        ctx.read, ctx.biased, ctx.sizes = (read.shape, read.dtype), bool(biases), [len(part) for part in weights]
        return results_TE.view(*read.shape[:-1], -1).split(ctx.sizes, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows_TD, weight_ED, *weights = ctx.saved_tensors
        gradient_TE = columns_side_by_side(gradients).to(rows_TD.dtype)
        shape, dtype = ctx.read
        d_read = (gradient_TE @ weight_ED).view(shape).to(dtype) if ctx.needs_input_grad[0] else None
        needed = ctx.needs_input_grad[2:]
        if not any(needed):
            return d_read, None, *[None] * len(needed)
        d_parameters = (gradient_TE.t() @ rows_TD).to(weights[0].dtype).split(ctx.sizes)
        if ctx.biased:
            d_parameters += gradient_TE.sum(0).to(weights[0].dtype).split(ctx.sizes)
        return d_read, None, *(part if needs else None for part, needs in zip(d_parameters, needed, strict=True))


def _by_dimensions(parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    return [p for p in parameters if p.dim() == 2], [p for p in parameters if p.dim() == 1]


def place_side_by_side(parameters: Sequence[nn.Parameter]) -> None:
    """Move parameters into one block of memory, in their order, if each one is all that its memory holds."""
    if not _lie_side_by_side(parameters) and all(map(_owns_memory, parameters)) and len(parameters) > 1:
        with torch.inference_mode(False):  # evaluation may come first, and weights have to be trainable
            block = torch.cat([parameter.detach() for parameter in parameters])
            setattr(block.untyped_storage(), _BLOCK, True)
            for parameter, rows in zip(parameters, block.split([len(p) for p in parameters]), strict=True):
                parameter.data = rows


def side_by_side(parameters: Sequence[Tensor]) -> Tensor:
    """Return the rows of all `parameters` as one tensor without a gradient: a view if they lie so, else a copy."""
    first = parameters[0].detach()
    if not _lie_side_by_side(parameters):
        return torch.cat([parameter.detach() for parameter in parameters])
    return first.as_strided((sum(map(len, parameters)), *first.shape[1:]), first.stride())


def columns_side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Return all columns of `parts` (..., D') as one tensor (T, E): a view if they are columns of one, else a copy."""
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    total, first = sum(part.shape[-1] for part in rows), rows[0]
    place = first.storage_offset()
    for part in rows:
        if not _shares_memory(part, first) or part.storage_offset() != place or part.stride() != (total, 1):
            return torch.cat(rows, -1)
        place += part.shape[-1]
    return first.as_strided((len(first), total), (total, 1))


def _lie_side_by_side(parameters: Sequence[Tensor]) -> bool:
    place = parameters[0].storage_offset() if parameters else 0
    for parameter in parameters:
        elsewhere = not _shares_memory(parameter, parameters[0]) or parameter.storage_offset() != place
        if elsewhere or not parameter.is_contiguous():
            return False
        place += parameter.numel()
    return True


def _shares_memory(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.untyped_storage()._cdata == other.untyped_storage()._cdata


def _owns_memory(parameter: Tensor) -> bool:
    return parameter.is_contiguous() and parameter.untyped_storage().nbytes() == parameter.nbytes
