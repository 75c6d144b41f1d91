"""Skips rows of the last layer that a head which reads first tokens does not need.

After the attention of the last layer, only the first tokens' rows are computed, with any attention kernel. If the
attention is like BERT's and runs in C++, its queries are computed for first tokens only, too.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native.attention import native_first_tokens, takes
from ftsys.kernels.native.library import NATIVE
from ftsys.models.dropout import KeyedDropout, attention_dropout
from ftsys.models.fused import FusedAddNorm
from ftsys.models.instances.subclass import Replacement, become

_PARTS = {"query": nn.Linear, "key": nn.Linear, "value": nn.Linear, "dropout": KeyedDropout}
"""Submodules by which an attention like BERT's is recognized, whatever the name of its class."""


class FirstTokensAttention(Replacement):
    """Computes BERT's attention with the queries of first tokens only: (1, T, D) to (1, S, D), in C++."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    dropout: KeyedDropout
    attention_head_size: int
    scaling: float

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        """Return (1, S, D) and None; the inherited result if the C++ kernel does not support the batch or tensors."""
        layout, rate = kwargs.get("packed"), self.dropout.p if self.training else 0.0
        if not isinstance(layout, PackedLayout) or layout.kernel != NATIVE or (rate and layout.dropout_keys_T is None):
            return super().forward(hidden_states, *args, **kwargs)
        rows_TD = hidden_states.squeeze(0)
        states = self.query(rows_TD.index_select(0, layout.first_tokens_S)), self.key(rows_TD), self.value(rows_TD)
        query_SHK, key_THK, value_THK = (rows.unflatten(-1, (-1, self.attention_head_size)) for rows in states)
        if not takes(query_SHK, key_THK, value_THK):
            return super().forward(hidden_states, *args, **kwargs)
        dropped = attention_dropout(self, layout, rate)
        output_SHK = native_first_tokens(query_SHK, key_THK, value_THK, layout, self.scaling, dropped)
        return output_SHK.flatten(1)[None], None


class RowsOfHead:
    """Selects the first tokens' rows of one last layer, by two hooks.

    The hooks are bound methods, as those of `LayoutSlot`, so that a deep copy of the model has its own. The layout is
    read from the attention's arguments, which are also correct when the layer is recomputed in the backward pass.
    """

    def __init__(self) -> None:
        self.layout: PackedLayout | None = None

    def note(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Store the layout before the attention runs: from `packed`, or from DeBERTa's `relative_pos`; else None."""
        carriers = kwargs.get("packed"), getattr(kwargs.get("relative_pos"), "layout", None)
        self.layout = next((layout for layout in carriers if isinstance(layout, PackedLayout)), None)

    def select(self, behind: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """Select the first tokens' rows (1, S, D) of the attention's result and of the residual, (1, T, D) each."""
        if self.layout is None:
            return None
        first_S = self.layout.first_tokens_S
        return tuple(rows if rows.shape[1] == len(first_S) else rows.index_select(1, first_S) for rows in args)


def skip_unused_rows(model: PreTrainedModel) -> None:
    """Make the last layer of an encoder whose head reads first tokens compute only these after its attention.

    This applies if the layer has BERT's parts, and each operation after its attention works row by row and runs once.
    `launcher.planner.model_shape` lists these families for the planner.
    """
    encoder = getattr(model.base_model, "encoder", None)
    layers = getattr(encoder, "layer", None)
    if not isinstance(layers, nn.ModuleList) or getattr(model.base_model, "z_steps", 0) > 1:
        return
    convolves = len(layers) == 1 and getattr(encoder, "conv", None) is not None
    in_chunks = getattr(layers[-1], "chunk_size_feed_forward", 0) > 0
    blocks = dict(layers[-1].named_modules())
    known = all(isinstance(blocks.get(name), FusedAddNorm) for name in ("attention.output", "output"))
    if known and not (convolves or in_chunks):
        rows = RowsOfHead()
        blocks["attention"].register_forward_pre_hook(rows.note, with_kwargs=True)
        blocks["attention.output"].register_forward_pre_hook(rows.select)
        _install_first_tokens_attention(blocks.get("attention.self"))


def _install_first_tokens_attention(attention: nn.Module | None) -> None:
    if attention is None or {name: type(part) for name, part in attention.named_children()} != _PARTS:
        return
    if hasattr(attention, "scaling") and hasattr(attention, "attention_head_size"):
        become(attention, FirstTokensAttention)
