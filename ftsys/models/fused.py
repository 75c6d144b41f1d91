"""Elementwise work of unmodified layers in one pass, by the native kernels or by what torch.compile makes of it.

Classes are replaced on the instances, as for dropout: nothing that is saved changes, and any other batch, dtype or
device goes through the same operations one by one.
"""

import inspect

import torch
from torch import nn

from ftsys.kernels import compiled_norm
from ftsys.kernels.native import layers
from ftsys.models.dropout import KeyedDropout, library_of, site_of
from ftsys.models.layout_slot import LayoutSlot

_PARTS = {"dense": nn.Linear, "dropout": KeyedDropout, "LayerNorm": nn.LayerNorm}
"""What an output block of BERT's kind consists of, whatever its class is called."""


class FusedAddNorm(nn.Module):
    """LayerNorm(residual + dropout(dense(x))), as BERT has it behind its attention and behind its feed-forward."""

    slot: LayoutSlot
    dense: nn.Linear
    dropout: KeyedDropout
    LayerNorm: nn.LayerNorm

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        """(1, T, D') and (1, T, D), or any other shape."""
        x, layout, norm = self.dense(hidden_states), self.slot.recent_layout, self.LayerNorm
        keys = self.dropout.keys_of(x, layout)
        drawn = self.training and self.dropout.p > 0 and keys is None
        library = None if layout is None else library_of(layout, x, input_tensor, norm.weight, norm.bias)
        if layout is None or drawn or (library is None and not layout.compiled):
            return norm(input_tensor + self.dropout(x))
        site = 0 if keys is None else site_of(self.dropout, layout)
        if library is None or layout.compiled:
            return compiled_norm.add_norm(x, input_tensor, norm, keys, site, self.dropout.p)
        return layers.add_norm(library, x, input_tensor, norm, keys, site, self.dropout.p)


def open_fused(model: nn.Module, slot: LayoutSlot) -> None:
    """Let what can be fused in `model` be fused; its dropouts are keyed already."""
    for module in model.modules():
        if _adds_and_norms(module):
            module.__class__, module.slot = FusedAddNorm, slot


def _adds_and_norms(module: nn.Module) -> bool:
    parts = {name: type(part) for name, part in module.named_children()}
    taken = list(inspect.signature(module.forward).parameters)
    return parts == _PARTS and taken == ["hidden_states", "input_tensor"] and not module._forward_hooks
