"""What the last layer need not compute: of its attention on, a head that reads first tokens needs their rows alone.

Behind the attention whatever the kernel, and its queries too where the attention is BERT's and runs in C++.
"""

from types import new_class
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native.attention import native_first_tokens, takes
from ftsys.kernels.native.library import NATIVE
from ftsys.models.dropout import KeyedDropout, attention_dropout
from ftsys.models.fused import FusedAddNorm

_PARTS = {"query": nn.Linear, "key": nn.Linear, "value": nn.Linear, "dropout": KeyedDropout}
"""What an attention of BERT's kind consists of, whatever its class is called."""
_ASKING: dict[type, type] = {}
"""The subclasses that were made, by the class of the model."""


class FirstTokensAttention(nn.Module):
    """Attention as BERT's, (1, T, D) to (1, S, D): what a batch computed in C++ asks for first tokens alone."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    dropout: KeyedDropout
    attention_head_size: int
    scaling: float

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        """As the model's own class, which has all other batches."""
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle finds a class by its name, which this one shares with the model's own."""
        _, stock = type(self).__bases__  # as `_asking` made it
        return _unpickled, (stock,), self.__dict__


class RowsOfHead:
    """Two hooks of one last layer, bound methods as a `LayoutSlot`'s are, so that a deep copy has its own.

    The layout comes from the attention's arguments, which are right in the layer's recomputation too.
    """

    def __init__(self) -> None:
        self.layout: PackedLayout | None = None

    def note(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Before the attention: `packed`, or what DeBERTa's layers carry as `relative_pos`; None for a padded batch."""
        carriers = kwargs.get("packed"), getattr(kwargs.get("relative_pos"), "layout", None)
        self.layout = next((layout for layout in carriers if isinstance(layout, PackedLayout)), None)

    def select(self, behind: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """Behind the attention: of its result and of the residual, (1, T, D) each, the first tokens' rows (1, S, D)."""
        if self.layout is None:
            return None
        first_S = self.layout.first_tokens_S
        return tuple(rows if rows.shape[1] == len(first_S) else rows.index_select(1, first_S) for rows in args)


def spare_last_layer(model: PreTrainedModel) -> None:
    """Let the last layer of an encoder whose head reads first tokens compute, behind its attention, nothing else.

    Done where the layer is BERT's in its parts, and all that stands behind its attention is done row by row, once.
    Which families that are, `launcher.planner.model_shape` knows for the planner.
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
        _ask_for_first_tokens(blocks.get("attention.self"))


def _ask_for_first_tokens(attention: nn.Module | None) -> None:
    if attention is None or {name: type(part) for name, part in attention.named_children()} != _PARTS:
        return
    if hasattr(attention, "scaling") and hasattr(attention, "attention_head_size"):
        attention.__class__ = _asking(type(attention))


def _asking(stock: type) -> type:
    """A subclass: transformers finds by the class whose attentions it is to return."""
    if stock not in _ASKING:
        _ASKING[stock] = new_class(stock.__name__, (FirstTokensAttention, stock))
    return _ASKING[stock]


def _unpickled(stock: type) -> nn.Module:
    """An empty instance, by its name here, for pickle and deepcopy to fill."""
    empty: nn.Module = object.__new__(_asking(stock))
    return empty
