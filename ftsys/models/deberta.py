"""Runs DeBERTa-v2 and v3 on packed batches: disentangled attention, with terms of content and relative position.

It replaces the classes of modules, as `ftsys.models.mpnet` explains. Written for the modules of transformers 5.17 to
5.23, whose encoder passes `relative_pos` to each layer without reading it. For a packed batch, that argument carries a
`PackedPositions`, also when activation checkpointing recomputes a layer in the backward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    ConvLayer,
    DebertaV2Encoder,
    DisentangledSelfAttention,
    make_log_bucket_position,
)

from ftsys.kernels.layout import PackedLayout, pad_rows, unpad_rows
from ftsys.kernels.pattern import PLAIN, Pattern, RelativeTerms
from ftsys.kernels.select import KERNELS
from ftsys.models.dropout import attention_dropout
from ftsys.models.joint_linear import JointLinear
from ftsys.models.layout_slot import LayoutSlot


@dataclass(frozen=True, eq=False)
class PackedPositions:
    """Holds what a layer gets as `relative_pos` for a packed batch.

    The batch uses only rows `first` to `last` - 1 of the table of relative positions. `row_O` (int64) maps an offset to
    its row, counted from `first`; None if row o belongs to offset o, as for short sequences.
    """

    layout: PackedLayout
    first: int
    last: int
    row_O: torch.Tensor | None

    @classmethod
    def of(cls, layout: PackedLayout, span: int, buckets: int, longest: int) -> "PackedPositions":
        """Return the positions of a batch for a table with 2 * `span` rows, whose row `span` is distance 0.

        With `buckets` > 0, distances above buckets / 2 share rows by their logarithm, up to the model's `longest`.
        """
        reach = layout.max_seqlen
        first, last = max(0, span - reach + 1), min(2 * span, span + reach)
        if reach <= (buckets // 2 + 1 if buckets > 0 else span):
            return cls(layout, first, last, None)
        distance_O = torch.arange(1 - reach, reach, device=layout.cu_seqlens.device)
        if buckets > 0:
            distance_O = make_log_bucket_position(distance_O, buckets, longest).long()
        return cls(layout, first, last, (distance_O + span).clamp(0, 2 * span - 1) - first)


class PackedEncoder(DebertaV2Encoder):
    """Passes `PackedPositions` to the layers for a packed batch."""

    layout_slot: LayoutSlot

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the inherited forward, with `PackedPositions` as `relative_pos` for a packed batch."""
        layout = self.layout_slot.layout
        if layout is not None:
            attention = self.layer[0].attention.self
            span, buckets, longest = (
                (attention.pos_ebd_size, attention.position_buckets, attention.max_relative_positions)
                if self.relative_attention
                else (layout.max_seqlen, 0, 0)
            )
            kwargs["relative_pos"] = PackedPositions.of(layout, span, buckets, longest)
        return super().forward(hidden_states, attention_mask, *args, **kwargs)


class PackedSelfAttention(DisentangledSelfAttention):
    """Computes attention within each sequence if `relative_pos` is a `PackedPositions`."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        output_attentions: bool = False,
        query_states: torch.Tensor | None = None,
        relative_pos: Any = None,
        rel_embeddings: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Map (1, T, D) to (1, T, D) for a packed batch, without attention weights; else run the inherited forward."""
        if not isinstance(relative_pos, PackedPositions):
            return super().forward(
                hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings
            )
        layout, rows_TD = relative_pos.layout, hidden_states[0]
        query, key, value = (
            self._by_head(linear, rows_TD) for linear in (self.query_proj, self.key_proj, self.value_proj)
        )
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        scale = (self.attention_head_size * terms) ** -0.5
        dropout = attention_dropout(self, layout, self.dropout.p if self.training else 0.0)
        pattern = PLAIN
        if self.relative_attention and rel_embeddings is not None:
            pattern = Pattern(relative=self._relative_terms(relative_pos, rel_embeddings))
        context_THK = KERNELS[layout.kernel](query, key, value, layout, scale, dropout, pattern)
        return context_THK.flatten(1)[None], None

    def _relative_terms(self, positions: PackedPositions, rel_embeddings: torch.Tensor) -> RelativeTerms:
        """Return the tables by offset, (H, 2L - 1, K) each, that the model's `pos_att_type` asks for."""
        rows_RD = self.pos_dropout(rel_embeddings[positions.first : positions.last])
        keys = queries = None
        if "c2p" in self.pos_att_type:
            keys = self._table(self.key_proj if self.share_att_key else self.pos_key_proj, rows_RD, positions)
        if "p2c" in self.pos_att_type:
            queries = self._table(self.query_proj if self.share_att_key else self.pos_query_proj, rows_RD, positions)
        return RelativeTerms(keys_HOK=keys, queries_HOK=queries)

    def _table(self, linear: nn.Module, rows_RD: torch.Tensor, positions: PackedPositions) -> torch.Tensor:
        # The content's projections are joined with each other, and not for rows of positions.
        rows_RHK = self._by_head(linear.alone if isinstance(linear, JointLinear) else linear, rows_RD)
        if positions.row_O is not None:
            rows_RHK = rows_RHK.index_select(0, positions.row_O)
        return rows_RHK.transpose(0, 1)

    def _by_head(self, linear: Callable[[torch.Tensor], torch.Tensor], rows_TD: torch.Tensor) -> torch.Tensor:
        return linear(rows_TD).unflatten(-1, (self.num_attention_heads, self.attention_head_size))


class PackedConv(ConvLayer):
    """Computes the convolution parallel to the first layer of some v2 models, without mixing neighbour sequences."""

    layout_slot: LayoutSlot

    def forward(
        self, hidden_states: torch.Tensor, residual_states: torch.Tensor, input_mask: torch.Tensor
    ) -> torch.Tensor:
        """Map (1, T, D) to (1, T, D) for a packed batch; else run the inherited forward."""
        layout = self.layout_slot.layout
        if layout is None:
            return super().forward(hidden_states, residual_states, input_mask)
        padded_SLD = pad_rows(hidden_states[0], layout)
        convolved_TD = unpad_rows(self.conv(padded_SLD.transpose(1, 2)).transpose(1, 2), layout)
        activated_TD = ACT2FN[self.conv_act](self.dropout(convolved_TD))
        return self.LayerNorm(residual_states + activated_TD[None]).to(residual_states.dtype)


def install_packed_deberta(model: PreTrainedModel, layout_slot: LayoutSlot) -> None:
    """Make the encoder, the attention modules and the convolution of a DeBERTa-v2 classifier accept packed batches."""
    encoder = model.base_model.encoder
    encoder.__class__, encoder.layout_slot = PackedEncoder, layout_slot
    if encoder.conv is not None:
        encoder.conv.__class__, encoder.conv.layout_slot = PackedConv, layout_slot
    for layer in encoder.layer:
        layer.attention.self.__class__ = PackedSelfAttention
