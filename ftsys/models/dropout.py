"""Dropout keyed by the example, put into an unmodified model: each of its dropouts is a site with a number of its own.

A `Dropout` module knows neither step nor example. While a packed batch trains, it looks them up in the batch's layout;
anywhere else it is torch's. Its class is replaced on the instance, so nothing that is saved changes.
"""

import torch
from torch import nn

from ftsys.kernels.dropout import AttentionDropout, keyed_dropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native import layers
from ftsys.kernels.native.library import NATIVE, Library, native
from ftsys.models.layout_slot import LayoutSlot

_SITE = "_ftsys_site"
_SHARED_LAYERS = ("albert",)
"""Model types whose layers are one module, called many times: a site of theirs counts its calls."""

CALLS = 1 << 12
"""Calls of one module in a forward pass, at most."""


class KeyedDropout(nn.Dropout):
    """`nn.Dropout` whose mask belongs to the tokens of a packed batch."""

    slot: LayoutSlot

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's own name
        """Any floating dtype, (1, T, D), or (S, D) or (S, 1, D) behind the pooling: keyed by a sequence's first token.

        Of any other shape, which belongs to no token, torch's dropout is taken.
        """
        layout = self.slot.recent_layout
        keys = self.keys_of(input, layout)
        if keys is None or layout is None:
            return super().forward(input)
        site, library = site_of(self, layout), library_of(layout, input)
        if library is not None:
            return layers.keyed_dropout(library, input, keys, site, self.p)
        return keyed_dropout(input, keys, site, self.p)

    def keys_of(self, rows: torch.Tensor, layout: PackedLayout | None) -> torch.Tensor | None:
        """A key for each row of `rows`, or None where the mask belongs to no token or nothing is dropped."""
        if not self.training or self.p == 0 or layout is None or layout.dropout_keys_T is None:
            return None
        count = rows.numel() // rows.shape[-1]
        if count == len(layout.dropout_keys_T):
            return layout.dropout_keys_T.view(rows.shape[:-1])
        if count == layout.sequences:
            return layout.dropout_keys_T[layout.first_tokens_S].view(rows.shape[:-1])
        return None


def library_of(layout: PackedLayout, *tensors: torch.Tensor) -> Library | None:
    """The native kernels, where the batch is computed with them and they take `tensors`."""
    return native() if layout.kernel == NATIVE and layers.takes(*tensors) else None


def open_dropout(model: nn.Module, slot: LayoutSlot) -> None:
    """Number the sites of `model`, in the order of its modules' names, and let its `nn.Dropout`s be keyed."""
    shared = getattr(model, "config", None) is not None and model.config.model_type in _SHARED_LAYERS
    for number, module in enumerate(model.modules()):
        setattr(module, _SITE, (number, shared))
        if type(module) is nn.Dropout:
            module.__class__ = KeyedDropout
            module.slot = slot


def attention_dropout(module: nn.Module, layout: PackedLayout, rate: float) -> AttentionDropout:
    """The dropout of the probabilities that `module` forms, for the attention kernels; `rate` is 0 in evaluation."""
    if rate == 0 or layout.dropout_keys_T is None:
        return AttentionDropout(rate)
    return AttentionDropout(rate, site_of(module, layout), layout.dropout_keys_T)


def site_of(module: nn.Module, layout: PackedLayout) -> int:
    """The module's number; where layers share it, a number for each of its calls in this batch's forward pass."""
    number, shared = getattr(module, _SITE)
    if not shared:
        return number * CALLS  # the same when a layer is computed again in the backward pass
    layout.calls[number] += 1
    return int(number * CALLS + layout.calls[number])
