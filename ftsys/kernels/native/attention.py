"""Attention in C++: one pass for each head of each sequence, its scores never in memory, dropout keyed by the example.

Only each row's log of its sum of exponentials is kept for the backward pass, which forms the scores again.
"""

from typing import Any

import torch

from ftsys.kernels.dropout import AttentionDropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native import layers
from ftsys.kernels.native.library import native
from ftsys.kernels.native.structures import Dropout, Shape, dropout_of

LANES = 16
"""A head's size must be a multiple of it."""


def takes(query_THK: torch.Tensor, key_THK: torch.Tensor, value_THK: torch.Tensor) -> bool:
    """Whether the kernel is made for these tensors, and there is one."""
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
    """As the kernels of `ftsys.kernels.attention`, for what `takes` says and a plain pattern."""
    where = (native(), layout, scale, dropout)
    output: torch.Tensor = _Native.apply(query_THK, key_THK, value_THK, where)
    return output


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, where: Any) -> torch.Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        output, logs_TH = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
        shape, dropout = _told(query, where)
        where[0].call("attention_forward", shape, query, key, value, dropout, output, logs_TH, dtype=query.dtype)
        ctx.save_for_backward(query, key, value, output, logs_TH)
        ctx.where = where
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, logs_TH = ctx.saved_tensors
        shape, dropout = _told(query, ctx.where)
        found = [torch.empty_like(query) for _ in range(3)]
        tensors = (query, key, value, dropout, output, logs_TH, gradients[0].contiguous(), *found)
        ctx.where[0].call("attention_backward", shape, *tensors, dtype=query.dtype)
        return (*found, None)


def _told(query: torch.Tensor, where: Any) -> tuple[Shape, Dropout]:
    _, layout, scale, dropout = where
    _, heads, size = query.shape
    assert layout.cu_seqlens.dtype == torch.int32
    assert layout.cu_seqlens.is_contiguous()
    shape = Shape(layout.cu_seqlens.data_ptr(), layout.sequences, heads, size, scale)
    return shape, dropout_of(dropout.keys_T, dropout.site, dropout.rate, layout.max_seqlen)
