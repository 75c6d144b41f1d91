"""Fuses dropout, residual and norm of unmodified layers, by C++ on a CPU, by Triton on a GPU, or by torch.compile.

Classes are replaced on the instances, as for dropout, so nothing that is saved changes. A batch, dtype or device that
the kernels do not support runs the same operations one by one.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ftsys.kernels import compiled_norm
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native import layers
from ftsys.kernels.triton_layers.choice import in_triton
from ftsys.models.dropout import KeyedDropout, library_of, site_of, windows_at
from ftsys.models.instances.subclass import Replacement, become, class_before
from ftsys.models.joint_linear import is_watched
from ftsys.models.layout_slot import LayoutSlot

_PARTS = {"dense": nn.Linear, "dropout": KeyedDropout, "LayerNorm": nn.LayerNorm}
"""Submodules by which an output block like BERT's is recognized, whatever the name of its class."""


class FusedAddNorm(nn.Module):
    """Computes LayerNorm(residual + dropout(dense(x))), as BERT does after attention and after the feed-forward."""

    layout_slot: LayoutSlot
    dense: nn.Linear
    dropout: KeyedDropout
    LayerNorm: nn.LayerNorm

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """Return (1, T, D) of (1, T, D') and the residual (1, T, D); other leading dimensions work as well."""
        layout, norm = self.layout_slot.recent_layout, self.LayerNorm
        if layout is not None and adds_in_triton(layout, self.dropout, hidden_states, input_tensor, norm.weight):
            x, bias = _without_bias(self.dense, hidden_states)
            return add_norm_in_triton(layout, self.layout_slot, x, input_tensor, self.dropout, norm, bias)
        x = self.dense(hidden_states)
        keys = self.dropout.keys_of(x, layout)
        drawn = self.training and self.dropout.p > 0 and keys is None
        library = None if layout is None else library_of(layout, x, input_tensor, norm.weight, norm.bias)
        if layout is None or drawn or (library is None and not layout.compiled):
            return norm(input_tensor + self.dropout(x))
        site = 0 if keys is None else site_of(self.dropout, layout)
        if library is None or layout.compiled:
            starts = None if keys is None else windows_at(site, keys, layout)
            return compiled_norm.add_norm(x, input_tensor, norm, starts, self.dropout.p)
        return layers.add_norm(library, x, input_tensor, norm, keys, site, self.dropout.p)


def adds_in_triton(layout: PackedLayout, dropout: KeyedDropout, *tensors: Tensor) -> bool:
    """Return True if Triton computes dropout + residual + norm of these tensors, the residual (..., D) second."""
    drawn = dropout.training and dropout.p > 0 and dropout.keys_of(tensors[1], layout) is None
    return not drawn and not layout.compiled and in_triton(layout.kernel, *tensors)


def add_norm_in_triton(
    layout: PackedLayout,
    layout_slot: LayoutSlot,
    x: Tensor,
    residual: Tensor,
    dropout: KeyedDropout,
    norm: nn.LayerNorm,
    bias: Tensor | None = None,
) -> Tensor:
    """Return norm(residual + dropout(x + bias)), for `x` and `residual` (..., D) that `adds_in_triton`."""
    from ftsys.kernels.triton_layers.dropout import RowDropout
    from ftsys.kernels.triton_layers.norm import NormOf, add_norm

    keys = dropout.keys_of(x, layout)
    drop = None if keys is None else RowDropout(keys, site_of(dropout, layout), dropout.p)
    how = NormOf(norm.eps, drop, dtype=torch.float32 if torch.is_autocast_enabled(x.device.type) else None)
    return layout_slot.remember(*add_norm(x, norm.weight, how, layout_slot.residual_of(residual), norm.bias, bias))


def _without_bias(dense: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the layer's result without its bias, and the bias; with it, and None, if the module has to be called."""
    if class_before(dense) is not nn.Linear or dense.bias is None or is_watched(dense):
        return dense(x), None
    return nn.functional.linear(x, dense.weight), dense.bias


def install_fused_layers(model: nn.Module, layout_slot: LayoutSlot) -> None:
    """Fuse the blocks of `model` that are like BERT's; its dropouts must already be keyed."""
    for module in model.modules():
        if _adds_and_norms(module):
            module.__class__, module.layout_slot = FusedAddNorm, layout_slot


def _adds_and_norms(module: nn.Module) -> bool:
    parts = {name: type(part) for name, part in module.named_children()}
    taken = list(inspect.signature(module.forward).parameters)
    return parts == _PARTS and taken == ["hidden_states", "input_tensor"] and not module._forward_hooks


class FusedRMSNorm(Replacement):
    """Computes x / sqrt(mean(x ** 2) + epsilon) * weight in Triton's batches, and as inherited in others."""

    layout_slot: LayoutSlot
    weight: nn.Parameter

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return (..., D) of (..., D)."""
        layout = self.layout_slot.recent_layout
        if layout is None or not in_triton(layout.kernel, hidden_states, self.weight):
            inherited: Tensor = super().forward(hidden_states)
            return inherited
        from ftsys.kernels.triton_layers.norm import NormOf, add_norm

        # Gemma stores its weights as their distance from 1.
        added = 1.0 if type(self).__name__.startswith("Gemma") else 0.0
        dtype = torch.promote_types(hidden_states.dtype, self.weight.dtype)
        how = NormOf(_epsilon(self), centered=False, added=added, dtype=dtype)
        return add_norm(hidden_states, self.weight, how)[0]


def install_rms_norms(model: nn.Module, layout_slot: LayoutSlot) -> None:
    """Fuse the modules of `model` that are RMSNorms like Llama's."""
    for module in model.modules():
        if _is_rms_norm(module):
            become(module, FusedRMSNorm)
            module.layout_slot = layout_slot


def _is_rms_norm(module: nn.Module) -> bool:
    named = type(module).__name__.endswith("RMSNorm") and type(module) is not nn.RMSNorm
    plain = list(dict(module.named_parameters())) == ["weight"] and not list(module.children())
    return named and plain and _epsilon(module) is not None and len(inspect.signature(module.forward).parameters) == 1


def _epsilon(module: Any) -> Any:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))
