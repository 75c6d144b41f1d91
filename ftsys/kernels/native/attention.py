"""Computes attention in C++ on CPU: one task per head and sequence, scores kept in cache, keyed dropout.

For the backward pass, only the log of each row's sum of exponentials is saved; the scores are computed again.
"""

from typing import Any

import torch

from ftsys.kernels.dropout import AttentionDropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native import layers
from ftsys.kernels.native.library import native
from ftsys.kernels.native.structures import Shape, dropout_of

LANES = 16
"""Floats of a vector in `common.h`; a head's size must be a multiple of it."""


def takes(query_THK: torch.Tensor, key_THK: torch.Tensor, value_THK: torch.Tensor) -> bool:
    """Return True if the kernel supports these tensors, and this machine has it."""
    fits = query_THK.shape[-1] % LANES == 0 and layers.takes(query_THK, key_THK, value_THK)
    return fits and native() is not None


def native_attention(
    query_THK: torch.Tensor,
    key_THK: torch.Tensor,
    value_THK: torch.Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout,
) -> torch.Tensor:
    """Compute attention as defined in `ftsys.kernels.attention`, with a plain pattern: (T, H, K).

    All tensors are (T, H, K), float32 or bfloat16, as `takes` checks.
    """
    shape = _shape(query_THK, layout, scale, first_only=False)
    drops = dropout_of(dropout.keys_T, dropout.site, dropout.rate, layout.max_seqlen)
    output: torch.Tensor = _Native.apply(query_THK, key_THK, value_THK, (native(), shape, drops, layout, dropout))
    return output


def native_first_tokens(
    query_SHK: torch.Tensor,
    key_THK: torch.Tensor,
    value_THK: torch.Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout,
) -> torch.Tensor:
    """Compute `native_attention` for the query of each sequence's first token only: (S, H, K)."""
    shape = _shape(query_SHK, layout, scale, first_only=True)
    keys_S = None if dropout.keys_T is None else dropout.keys_T.index_select(0, layout.first_tokens_S)
    drops = dropout_of(keys_S, dropout.site, dropout.rate, layout.max_seqlen)
    output: torch.Tensor = _Native.apply(query_SHK, key_THK, value_THK, (native(), shape, drops, layout, keys_S))
    return output


def _shape(query: torch.Tensor, layout: PackedLayout, scale: float, first_only: bool) -> Shape:
    assert layout.cu_seqlens.dtype == torch.int32
    assert layout.cu_seqlens.is_contiguous()
    return Shape(layout.cu_seqlens.data_ptr(), layout.sequences, *query.shape[1:], scale, first_only)


class _Native(torch.autograd.Function):
    """Calls the forward and the backward kernel; `where` is (library, shape, dropout, layout, dropout keys)."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, where: Any) -> torch.Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        output, logs = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
        library, shape, dropout, *_ = where
        library.call("attention_forward", shape, query, key, value, dropout, output, logs, dtype=query.dtype)
        ctx.save_for_backward(query, key, value, output, logs)
        ctx.where = where  # its last two elements own the memory that the structures point to
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, logs = ctx.saved_tensors
        library, shape, dropout, *_ = ctx.where
        found = [torch.empty_like(states) for states in (query, key, value)]
        tensors = (query, key, value, dropout, output, logs, gradients[0].contiguous(), *found)
        library.call("attention_backward", shape, *tensors, dtype=query.dtype)
        return (*found, None)
