"""Holds the sequence bounds of a packed batch, and converts between packed and padded rows.

Shape suffixes: T packed tokens, S sequences, L longest sequence, H heads, K head size, D hidden.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from ftsys.kernels.batch_windows import BatchWindows, KnownSites
from ftsys.kernels.length_groups import Group, make_groups
from ftsys.kernels.pattern import PLAIN, Pattern


@dataclass(frozen=True, eq=False)
class PackedLayout:
    """Holds the bounds of a batch's sequences, and caches what kernels derive from them, once for all layers.

    `cu_seqlens` is int32 (S + 1,): sequence s is tokens `cu_seqlens[s]` to `cu_seqlens[s + 1]` - 1. `max_seqlen` is L.
    """

    cu_seqlens: torch.Tensor
    max_seqlen: int
    kernel: str = field(default="padded")
    """Name of a kernel of `ftsys.kernels.select`, set by the packed view: all layers of a batch use the same one."""
    dropout_keys_T: torch.Tensor | None = None
    """One int64 key per token (see `ftsys.kernels.dropout`); None: dropout uses torch's generator."""
    compiled: bool = False
    """True if `ftsys.kernels.compiled_norm` computes dropout, residual and LayerNorm."""
    known_sites: KnownSites = field(default_factory=KnownSites, repr=False)
    """The model's dropout sites, shared by its batches."""
    known_tokens: int | None = None
    """T where the host knows it; None: it is read from `cu_seqlens`, for which the host waits for a GPU."""
    calls: Counter[int] = field(default_factory=Counter, init=False, repr=False)
    """Calls of each dropout site in this batch's forward pass, for models whose layers share a module."""
    _score_biases: dict[Any, torch.Tensor | None] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def tokens(self) -> int:
        """Return the number of packed tokens, T."""
        return int(self.cu_seqlens[-1]) if self.known_tokens is None else self.known_tokens

    @cached_property
    def sequences(self) -> int:
        """Return the number of sequences, S."""
        return self.cu_seqlens.numel() - 1

    @cached_property
    def lengths_S(self) -> torch.Tensor:
        """Return the number of tokens of each sequence, int64 (S,)."""
        return self.cu_seqlens.diff().long()

    @cached_property
    def first_tokens_S(self) -> torch.Tensor:
        """Return the index of each sequence's first token, int64 (S,)."""
        return self.cu_seqlens[:-1].long()

    @cached_property
    def last_tokens_S(self) -> torch.Tensor:
        """Return the index of each sequence's last token, int64 (S,)."""
        return self.cu_seqlens[1:].long() - 1

    @cached_property
    def dropout_keys_S(self) -> torch.Tensor | None:
        """The dropout key of each sequence's first token, int64 (S,)."""
        return None if self.dropout_keys_T is None else self.dropout_keys_T.index_select(0, self.first_tokens_S)

    @cached_property
    def dropout_windows(self) -> BatchWindows:
        """The windows of `dropout_keys_T`, for the kernels that hash no keys themselves."""
        assert self.dropout_keys_T is not None
        return BatchWindows(self.dropout_keys_T, self.known_sites, self.kernel)

    @cached_property
    def is_rectangular(self) -> bool:
        """Return True if all sequences have length L; then packed and padded rows are the same memory."""
        return self.tokens == self.sequences * self.max_seqlen

    @cached_property
    def padded_rows_T(self) -> torch.Tensor:
        """Return the row of each packed token in the padded (S * L, ...) array, int64 (T,)."""
        starts_S = torch.arange(self.sequences, device=self.cu_seqlens.device) * self.max_seqlen
        shift_S = starts_S - self.first_tokens_S
        tokens = torch.arange(self.tokens, device=self.cu_seqlens.device)
        return tokens + torch.repeat_interleave(shift_S, self.lengths_S, output_size=self.tokens)

    @cached_property
    def groups(self) -> list[Group]:
        """Return groups of sequences of similar length, for the kernel that pads each group."""
        return make_groups(self.cu_seqlens)

    @cached_property
    def padding_SL(self) -> torch.Tensor:
        """Return a mask of the padded rows without a token, bool (S, L)."""
        return torch.arange(self.max_seqlen, device=self.cu_seqlens.device) >= self.lengths_S[:, None]

    def score_bias(self, dtype: torch.dtype, pattern: Pattern = PLAIN) -> torch.Tensor | None:
        """Return the bias that hides keys, which broadcasts against padded scores (S, H, L, L); None if none is hidden.

        It is 0 for a visible key and the most negative finite number of `dtype` for others. Cached for all layers.
        """
        name = (dtype, pattern.causal, pattern.window)
        if name not in self._score_biases:
            hidden = self._hidden(pattern)
            bias = None if hidden is None else torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            # One number for padding and pattern together: a sum of two would be -inf, and a row of -inf gives NaN.
            self._score_biases[name] = bias if bias is None else bias.masked_fill_(hidden, torch.finfo(dtype).min)
        return self._score_biases[name]

    def _hidden(self, pattern: Pattern) -> torch.Tensor | None:
        by_pattern_LL = pattern.hidden_LL(self.max_seqlen, self.cu_seqlens.device)
        # Padding is after a sequence's tokens, so a causal mask already hides it from all of them.
        if pattern.causal or self.is_rectangular:
            return by_pattern_LL
        padding_S11L = self.padding_SL[:, None, None, :]
        return padding_S11L if by_pattern_LL is None else padding_S11L | by_pattern_LL


class _Pad(torch.autograd.Function):
    """Copies (T, D) to (S * L, D) with zeros between; its gradient is a gather, so no pass needs a scatter-add."""

    @staticmethod
    def forward(ctx: Any, rows_TD: torch.Tensor, padded_rows_T: torch.Tensor, row_count: int) -> torch.Tensor:
        ctx.save_for_backward(padded_rows_T)
        return rows_TD.new_zeros(row_count, rows_TD.shape[1]).index_copy_(0, padded_rows_T, rows_TD)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradients[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Unpad(torch.autograd.Function):
    """Gathers (T, D) from (S * L, D)."""

    @staticmethod
    def forward(ctx: Any, padded_RD: torch.Tensor, padded_rows_T: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(padded_rows_T)
        ctx.row_count = padded_RD.shape[0]
        return padded_RD.index_select(0, padded_rows_T)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (padded_rows_T,) = ctx.saved_tensors
        gradient = gradients[0]
        return gradient.new_zeros(ctx.row_count, gradient.shape[1]).index_copy_(0, padded_rows_T, gradient), None


def pad_rows(rows_TD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Pad packed rows (T, D) to (S, L, D), with zeros in padding. Differentiable, any floating dtype."""
    if not layout.is_rectangular:
        rows_TD = _Pad.apply(rows_TD, layout.padded_rows_T, layout.sequences * layout.max_seqlen)
    return rows_TD.view(layout.sequences, layout.max_seqlen, rows_TD.shape[1])


def unpad_rows(padded_SLD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Return the tokens' rows (T, D) of padded (S, L, D). Differentiable, any floating dtype."""
    rows = padded_SLD.reshape(layout.sequences * layout.max_seqlen, padded_SLD.shape[2])
    return rows if layout.is_rectangular else _Unpad.apply(rows, layout.padded_rows_T)
