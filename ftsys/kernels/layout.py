"""Where each sequence lies in a packed batch, and the moves between packed and padded rows.

Shape suffixes: T packed tokens, S sequences, L longest sequence, H heads, K head size, D hidden.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from ftsys.kernels.length_groups import Group, make_groups
from ftsys.kernels.pattern import PLAIN, Pattern


@dataclass(frozen=True, eq=False)
class PackedLayout:
    """`cu_seqlens` int32 (S+1,): sequence s is tokens `cu_seqlens[s]` to `cu_seqlens[s+1]`; `max_seqlen` = L.

    What kernels derive from it is computed once a batch, not once a layer.
    """

    cu_seqlens: torch.Tensor
    max_seqlen: int
    # Set by the packed view: a name from `kernels.choice`, so that every layer of a batch uses the same kernel.
    kernel: str = field(default="padded")
    dropout_keys_T: torch.Tensor | None = None
    """One key a token, int64 (see `kernels.dropout`); None: dropout is drawn from torch's generator."""
    compiled: bool = False
    """Whether `kernels.regions` computes what lies between matrix products."""
    calls: Counter[int] = field(default_factory=Counter, init=False, repr=False)
    """How often each dropout site was met in this batch's forward pass, where layers share one."""
    _score_biases: dict[Any, torch.Tensor | None] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def sequences(self) -> int:
        """S."""
        return self.cu_seqlens.numel() - 1

    @cached_property
    def lengths_S(self) -> torch.Tensor:
        """Tokens of each sequence, int64."""
        return self.cu_seqlens.diff().long()

    @cached_property
    def first_tokens_S(self) -> torch.Tensor:
        """Index of each sequence's first token, int64."""
        return self.cu_seqlens[:-1].long()

    @cached_property
    def last_tokens_S(self) -> torch.Tensor:
        """Index of each sequence's last token, int64."""
        return self.cu_seqlens[1:].long() - 1

    @cached_property
    def is_rectangular(self) -> bool:
        """Whether all sequences are L long, so that packed and padded are the same memory."""
        return int(self.cu_seqlens[-1]) == self.sequences * self.max_seqlen

    @cached_property
    def slots_T(self) -> torch.Tensor:
        """For each packed token its row in the padded (S * L, ...) array, int64."""
        starts_S = torch.arange(self.sequences, device=self.cu_seqlens.device) * self.max_seqlen
        shift_S = starts_S - self.first_tokens_S
        tokens = torch.arange(int(self.cu_seqlens[-1]), device=self.cu_seqlens.device)
        return tokens + torch.repeat_interleave(shift_S, self.lengths_S)

    @cached_property
    def groups(self) -> list[Group]:
        """Sequences of like lengths, for the kernel that pads them together."""
        return make_groups(self.cu_seqlens)

    @cached_property
    def padding_SL(self) -> torch.Tensor:
        """True where a padded row holds no token."""
        return torch.arange(self.max_seqlen, device=self.cu_seqlens.device) >= self.lengths_S[:, None]

    def score_bias(self, dtype: torch.dtype, pattern: Pattern = PLAIN) -> torch.Tensor | None:
        """What is added to padded scores (S, H, L, L), or None where every key is seen; broadcasts against them.

        0 for a key that is seen, the most negative finite number for others. Made once a batch, not once a layer.
        """
        name = (dtype, pattern.causal, pattern.window)
        if name not in self._score_biases:
            hidden = self._hidden(pattern)
            bias = None if hidden is None else torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            # One number for both reasons to hide a key: two added up would be minus infinity, and a row of those NaN.
            self._score_biases[name] = bias if bias is None else bias.masked_fill_(hidden, torch.finfo(dtype).min)
        return self._score_biases[name]

    def _hidden(self, pattern: Pattern) -> torch.Tensor | None:
        by_pattern_LL = pattern.hidden_LL(self.max_seqlen, self.cu_seqlens.device)
        # Padding lies behind a sequence's tokens, so a causal mask hides it from all of them.
        if pattern.causal or self.is_rectangular:
            return by_pattern_LL
        padding_S11L = self.padding_SL[:, None, None, :]
        return padding_S11L if by_pattern_LL is None else padding_S11L | by_pattern_LL


class _Pad(torch.autograd.Function):
    """(T, D) -> (S * L, D) with zeros between; its gradient is the opposite move, so neither is a scatter-add."""

    @staticmethod
    def forward(ctx: Any, rows_TD: torch.Tensor, slots_T: torch.Tensor, padded_rows: int) -> torch.Tensor:
        ctx.save_for_backward(slots_T)
        return rows_TD.new_zeros(padded_rows, rows_TD.shape[1]).index_copy_(0, slots_T, rows_TD)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradients[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Unpad(torch.autograd.Function):
    """(S * L, D) -> (T, D)."""

    @staticmethod
    def forward(ctx: Any, padded_RD: torch.Tensor, slots_T: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(slots_T)
        ctx.padded_rows = padded_RD.shape[0]
        return padded_RD.index_select(0, slots_T)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (slots_T,) = ctx.saved_tensors
        gradient = gradients[0]
        return gradient.new_zeros(ctx.padded_rows, gradient.shape[1]).index_copy_(0, slots_T, gradient), None


def pad_rows(rows_TD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Packed rows (T, D) as padded (S, L, D), zeros where no token is. Differentiable, any floating dtype."""
    if not layout.is_rectangular:
        rows_TD = _Pad.apply(rows_TD, layout.slots_T, layout.sequences * layout.max_seqlen)
    return rows_TD.view(layout.sequences, layout.max_seqlen, rows_TD.shape[1])


def unpad_rows(padded_SLD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Padded (S, L, D) as packed rows (T, D). Differentiable, any floating dtype."""
    rows = padded_SLD.reshape(layout.sequences * layout.max_seqlen, padded_SLD.shape[2])
    return rows if layout.is_rectangular else _Unpad.apply(rows, layout.slots_T)
