"""Elementwise work of unmodified layers in one pass, by the native kernels or by what torch.compile makes of it; and
what the last layer need not compute.

Classes are replaced on the instances, as for dropout: nothing that is saved changes, and any other batch, dtype or
device goes through the same operations one by one.
"""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ftsys.kernels import regions
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native import layers
from ftsys.models.dropout import KeyedDropout, library_of, site_of
from ftsys.models.slot import LayoutSlot

_PARTS = {"dense": nn.Linear, "dropout": KeyedDropout, "LayerNorm": nn.LayerNorm}
"""What an output block of BERT's kind consists of, whatever its class is called."""


class FusedAddNorm(nn.Module):
    """LayerNorm(residual + dropout(dense(x))), as BERT has it behind its attention and behind its feed-forward."""

    slot: LayoutSlot
    dense: nn.Linear
    dropout: KeyedDropout
    LayerNorm: nn.LayerNorm
    read_by_head: PackedLayout | None = None
    """Of these sequences only first tokens are computed from here on: the head reads no others."""

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        """(1, T, D') and (1, T, D), or any other shape; (1, T, D), or (1, S, D) in the last layer."""
        layout, norm = self.slot.recent_layout, self.LayerNorm
        if self.read_by_head is not None:
            first_S = self.read_by_head.first_tokens_S
            hidden_states, input_tensor = (rows.index_select(1, first_S) for rows in (hidden_states, input_tensor))
        x = self.dense(hidden_states)
        keys = self.dropout.keys_of(x, layout)
        drawn = self.training and self.dropout.p > 0 and keys is None
        library = None if layout is None else library_of(layout, x, input_tensor, norm.weight, norm.bias)
        if layout is None or drawn or (library is None and not layout.compiled):
            return norm(input_tensor + self.dropout(x))
        site = 0 if keys is None else site_of(self.dropout, layout)
        if library is None or layout.compiled:
            return regions.add_norm(x, input_tensor, norm, keys, site, self.dropout.p)
        return layers.add_norm(library, x, input_tensor, norm, keys, site, self.dropout.p)

    def note_layout(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """A hook of the attention before it, whose arguments are right in a layer's recomputation too."""
        carriers = kwargs.get("packed"), getattr(kwargs.get("relative_pos"), "layout", None)
        self.read_by_head = next((layout for layout in carriers if isinstance(layout, PackedLayout)), None)


def open_fused(model: nn.Module, slot: LayoutSlot) -> None:
    """Let what can be fused in `model` be fused; its dropouts are keyed already."""
    for module in model.modules():
        if _adds_and_norms(module):
            module.__class__, module.slot = FusedAddNorm, slot


def spare_last_layer(model: PreTrainedModel) -> None:
    """Let the last layer of an encoder whose head reads first tokens compute, behind its attention, nothing else.

    Done where the layer is BERT's in its parts, and all that stands behind its attention is done row by row, once.
    """
    encoder = getattr(model.base_model, "encoder", None)
    layers = getattr(encoder, "layer", None)
    if not isinstance(layers, nn.ModuleList) or getattr(model.base_model, "z_steps", 0) > 1:
        return
    last, convolves = layers[-1], len(layers) == 1 and getattr(encoder, "conv", None) is not None
    in_chunks = getattr(last, "chunk_size_feed_forward", 0) > 0
    blocks = dict(last.named_modules())
    behind, known = blocks.get("attention.output"), isinstance(blocks.get("output"), FusedAddNorm)
    if isinstance(behind, FusedAddNorm) and known and not (convolves or in_chunks):
        blocks["attention"].register_forward_pre_hook(behind.note_layout, with_kwargs=True)


def _adds_and_norms(module: nn.Module) -> bool:
    parts = {name: type(part) for name, part in module.named_children()}
    taken = list(inspect.signature(module.forward).parameters)
    return parts == _PARTS and taken == ["hidden_states", "input_tensor"] and not module._forward_hooks
