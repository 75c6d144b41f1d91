"""Fuses dropout, residual and LayerNorm of unmodified layers, with the native kernels or with torch.compile.

Classes are replaced on the instances, as for dropout, so nothing that is saved changes. A batch, dtype or device that
the kernels do not support runs the same operations one by one.
"""

import inspect

import torch
from torch import nn

from ftsys.kernels import compiled_norm
from ftsys.kernels.native import layers
from ftsys.models.dropout import KeyedDropout, library_of, site_of, windows_at
from ftsys.models.layout_slot import LayoutSlot

_PARTS = {"dense": nn.Linear, "dropout": KeyedDropout, "LayerNorm": nn.LayerNorm}
"""Submodules by which an output block like BERT's is recognized, whatever the name of its class."""


class FusedAddNorm(nn.Module):
    """Computes LayerNorm(residual + dropout(dense(x))), as BERT does after attention and after the feed-forward."""

    layout_slot: LayoutSlot
    dense: nn.Linear
    dropout: KeyedDropout
    LayerNorm: nn.LayerNorm

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        """Return (1, T, D) of (1, T, D') and the residual (1, T, D); other leading dimensions work as well."""
        x, layout, norm = self.dense(hidden_states), self.layout_slot.recent_layout, self.LayerNorm
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


def install_fused_layers(model: nn.Module, layout_slot: LayoutSlot) -> None:
    """Fuse the blocks of `model` that are like BERT's; its dropouts must already be keyed."""
    for module in model.modules():
        if _adds_and_norms(module):
            module.__class__, module.layout_slot = FusedAddNorm, layout_slot


def _adds_and_norms(module: nn.Module) -> bool:
    parts = {name: type(part) for name, part in module.named_children()}
    taken = list(inspect.signature(module.forward).parameters)
    return parts == _PARTS and taken == ["hidden_states", "input_tensor"] and not module._forward_hooks
