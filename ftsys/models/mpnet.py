"""Runs MPNet on packed batches: attention with a learned bias by distance.

MPNet's modules do not use transformers' AttentionInterface, so the class of each instance is replaced by a subclass.
Parameters, names and files stay the same, padded batches run the inherited code, and copies and pickles work. Written
for the modules of transformers 5.17 to 5.23, whose encoder computes the bias once and passes it to each layer as
`position_bias`. For a packed batch, that argument carries the layout.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder, MPNetSelfAttention

from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import Pattern, RelativeTerms
from ftsys.kernels.select import KERNELS
from ftsys.models.dropout import attention_dropout
from ftsys.models.layout_slot import LayoutSlot


@dataclass(frozen=True, eq=False)
class PackedBias:
    """Holds what a layer gets as `position_bias` for a packed batch."""

    layout: PackedLayout
    pattern: Pattern


class PackedEncoder(MPNetEncoder):
    """Passes a `PackedBias` to the layers for a packed batch."""

    layout_slot: LayoutSlot

    def compute_position_bias(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return the bias of all layers; for a packed batch by offset, (H, 2L - 1), instead of by pair of tokens."""
        layout = self.layout_slot.layout
        if layout is None:
            return super().compute_position_bias(x, *args, **kwargs)
        # MPNet's relative position is key minus query; the kernels' offset is query minus key.
        distances_O = torch.arange(layout.max_seqlen - 1, -layout.max_seqlen, -1, device=x.device)
        bias_OH = self.relative_attention_bias(self.relative_position_bucket(distances_O))
        return PackedBias(layout, Pattern(relative=RelativeTerms(bias_HO=bias_OH.T)))


class PackedSelfAttention(MPNetSelfAttention):
    """Computes attention within each sequence if `position_bias` is a `PackedBias`."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: Any = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...]:
        """Map (1, T, D) to (1, T, D) for a packed batch, without attention weights; else run the inherited forward."""
        if not isinstance(position_bias, PackedBias):
            return super().forward(hidden_states, attention_mask, position_bias, output_attentions, **kwargs)
        by_head = (self.num_attention_heads, self.attention_head_size)
        rows_TD = hidden_states[0]
        query, key, value = (linear(rows_TD).unflatten(-1, by_head) for linear in (self.q, self.k, self.v))
        scale = self.attention_head_size**-0.5
        layout = position_bias.layout
        dropout = attention_dropout(self, layout, self.dropout.p if self.training else 0.0)
        context_THK = KERNELS[layout.kernel](query, key, value, layout, scale, dropout, position_bias.pattern)
        return (self.o(context_THK.flatten(1))[None],)


def install_packed_mpnet(model: PreTrainedModel, layout_slot: LayoutSlot) -> None:
    """Make the encoder and the attention modules of an MPNet classifier accept packed batches."""
    encoder = model.base_model.encoder
    encoder.__class__, encoder.layout_slot = PackedEncoder, layout_slot
    for layer in encoder.layer:
        layer.attention.attn.__class__ = PackedSelfAttention
