"""Installs dropout keyed by the example in an unmodified model; each dropout of the model is a site with a number.

A `Dropout` module does not know the step or the example. In training on a packed batch, it reads their keys from the
batch's layout; in any other case it is torch's dropout. The class is replaced on the instance, so nothing that is saved
changes.
"""

import torch
from torch import nn

from ftsys.kernels.dropout import AttentionDropout, Windows, windowed_dropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native import layers
from ftsys.kernels.native.library import NATIVE, Library, native
from ftsys.kernels.triton_layers.choice import in_triton
from ftsys.models.layout_slot import LayoutSlot

_SITE = "_ftsys_site"
_SHARED_LAYERS = ("albert",)
"""Model types that call one module for all layers: the number of a call is part of its site."""

CALLS = 1 << 12
"""Largest number of calls of one module in a forward pass."""


class KeyedDropout(nn.Dropout):
    """Applies dropout whose mask depends on the token of a packed batch, not on a generator."""

    layout_slot: LayoutSlot

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's own name
        """Apply dropout to `input`, any floating dtype.

        (1, T, D) is keyed by the token; (S, D) or (S, 1, D), after the pooling, by each sequence's first token. Any
        other shape has no tokens, and gets torch's dropout.
        """
        layout = self.layout_slot.recent_layout
        keys = self.keys_of(input, layout)
        if keys is None or layout is None:
            return super().forward(input)
        site, library = site_of(self, layout), library_of(layout, input)
        if library is not None:
            return layers.keyed_dropout(library, input, keys, site, self.p)
        if in_triton(layout.kernel, input):
            from ftsys.kernels.triton_layers import dropout as triton_dropout

            return triton_dropout.keyed_dropout(input, triton_dropout.RowDropout(keys, site, self.p))
        return windowed_dropout(input, windows_at(site, keys, layout), self.p)

    def keys_of(self, rows: torch.Tensor, layout: PackedLayout | None) -> torch.Tensor | None:
        """Return one int64 key per row of `rows`; None if rows are not tokens or nothing is dropped."""
        if not self.training or self.p == 0 or layout is None or layout.dropout_keys_T is None:
            return None
        count = rows.numel() // rows.shape[-1]
        if count == len(layout.dropout_keys_T):
            return layout.dropout_keys_T.view(rows.shape[:-1])
        if count == layout.sequences and layout.dropout_keys_S is not None:
            return layout.dropout_keys_S.view(rows.shape[:-1])
        return None


def windows_at(site: int, keys: torch.Tensor, layout: PackedLayout) -> Windows:
    """Return the windows at `site` of the tokens or first tokens that `keys` are of, in the shape of `keys`."""
    first, second = layout.dropout_windows.of_tokens(site)
    if keys.numel() != first.numel():
        first, second = (starts.index_select(0, layout.first_tokens_S) for starts in (first, second))
    return first.view(keys.shape), second.view(keys.shape)


def library_of(layout: PackedLayout, *tensors: torch.Tensor) -> Library | None:
    """Return the native kernels if the batch is computed with them and they support `tensors`, else None."""
    return native() if layout.kernel == NATIVE and layers.takes(*tensors) else None


def install_keyed_dropout(model: nn.Module, layout_slot: LayoutSlot) -> None:
    """Number the sites of `model` in the order of `model.modules()`, and make each `nn.Dropout` a `KeyedDropout`."""
    shared = getattr(model, "config", None) is not None and model.config.model_type in _SHARED_LAYERS
    for number, module in enumerate(model.modules()):
        setattr(module, _SITE, (number, shared))
        if type(module) is nn.Dropout:
            module.__class__ = KeyedDropout
            module.layout_slot = layout_slot


def attention_dropout(module: nn.Module, layout: PackedLayout, rate: float) -> AttentionDropout:
    """Return the dropout of the attention probabilities of `module`, for the kernels; `rate` is 0 in evaluation."""
    if rate == 0 or layout.dropout_keys_T is None:
        return AttentionDropout(rate)
    windows_of = layout.dropout_windows.of_heads
    return AttentionDropout(rate, site_of(module, layout), layout.dropout_keys_T, windows_of)


def site_of(module: nn.Module, layout: PackedLayout) -> int:
    """Return the module's site number; if layers share it, one number per call in this batch's forward pass."""
    number, shared = getattr(module, _SITE)
    if not shared:
        return number * CALLS  # the same when a layer is recomputed in the backward pass
    layout.calls[number] += 1
    return int(number * CALLS + layout.calls[number])
