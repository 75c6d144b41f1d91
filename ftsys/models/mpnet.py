"""MPNet: attention with a learned bias by distance. Its modules take no attention function, so they change class.

An instance's class is replaced by a subclass of its own: parameters, names and files stay, padded batches take the
inherited way, copies and pickles keep working. Written for the modules of transformers 5.17 to 5.23, where the encoder
computes the bias once and hands it to each layer as `position_bias`: the argument in which the layout travels here.
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
    """What a layer gets as `position_bias` for a packed batch."""

    layout: PackedLayout
    pattern: Pattern


class PackedEncoder(MPNetEncoder):
    """Hands a `PackedBias` to the layers while a packed batch is under way."""

    slot: LayoutSlot

    def compute_position_bias(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The bias of all layers; for a packed batch by offset, (H, 2L - 1), instead of by pair of tokens."""
        layout = self.slot.layout
        if layout is None:
            return super().compute_position_bias(x, *args, **kwargs)
        # MPNet's relative position is the key's minus the query's: the kernels' offset the other way round.
        distances_O = torch.arange(layout.max_seqlen - 1, -layout.max_seqlen, -1, device=x.device)
        bias_OH = self.relative_attention_bias(self.relative_position_bucket(distances_O))
        return PackedBias(layout, Pattern(relative=RelativeTerms(bias_HO=bias_OH.T)))


class PackedSelfAttention(MPNetSelfAttention):
    """Attention within each sequence where it is given a `PackedBias`."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: Any = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...]:
        """(1, T, D) in, (1, T, D) out; no attention weights are returned for a packed batch."""
        if not isinstance(position_bias, PackedBias):
            return super().forward(hidden_states, attention_mask, position_bias, output_attentions, **kwargs)
        by_head = (self.num_attention_heads, self.attention_head_size)
        query, key, value = (linear(hidden_states[0]).unflatten(-1, by_head) for linear in (self.q, self.k, self.v))
        scale = self.attention_head_size**-0.5
        layout = position_bias.layout
        dropout = attention_dropout(self, layout, self.dropout.p if self.training else 0.0)
        context_THK = KERNELS[layout.kernel](query, key, value, layout, scale, dropout, position_bias.pattern)
        return (self.o(context_THK.flatten(1))[None],)


def open_mpnet(model: PreTrainedModel, slot: LayoutSlot) -> None:
    """Let the encoder and the attention modules of an MPNet classifier take packed batches."""
    encoder = model.base_model.encoder
    encoder.__class__, encoder.slot = PackedEncoder, slot
    for layer in encoder.layer:
        layer.attention.attn.__class__ = PackedSelfAttention
