"""Attention in C++: one pass for each head of each sequence, its scores never in memory, dropout keyed by the example.

Only each row's log of its sum of exponentials is kept for the backward pass, which forms the scores again.
"""

from typing import Any

import torch

from ftsys.kernels.dropout import AttentionDropout
from ftsys.kernels.native import layers
from ftsys.kernels.native.library import Library
from ftsys.kernels.native.structures import Dropout, Shape, dropout_of

LANES = 16
"""A head's size must be a multiple of it."""


def takes(query_THK: torch.Tensor, key_TGK: torch.Tensor, value_TGK: torch.Tensor) -> bool:
    """Whether the kernel is made for these tensors."""
    same = query_THK.shape == key_TGK.shape and query_THK.shape[-1] % LANES == 0
    return same and layers.takes(query_THK, key_TGK, value_TGK)


def native_attention(
    library: Library,
    query_THK: torch.Tensor,
    key_THK: torch.Tensor,
    value_THK: torch.Tensor,
    cu_seqlens: torch.Tensor,
    longest: int,
    scale: float,
    dropout: AttentionDropout,
) -> torch.Tensor:
    """As the kernels of `ftsys.kernels.attention`, for what `takes` says and a plain pattern."""
    where = (library, cu_seqlens, longest, scale, dropout)
    output: torch.Tensor = _Native.apply(query_THK, key_THK, value_THK, where)
    return output


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, where: Any) -> torch.Tensor:
        library, cu_seqlens, *_ = where
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        output, logs_TH = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
        shape, dropout = _told(query, where)
        library.call("attention_forward", shape, query, key, value, dropout, output, logs_TH, dtype=query.dtype)
        ctx.save_for_backward(query, key, value, output, logs_TH, cu_seqlens)
        ctx.where = where
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, logs_TH, _ = ctx.saved_tensors
        shape, dropout = _told(query, ctx.where)
        found = [torch.empty_like(query) for _ in range(3)]
        tensors = (query, key, value, dropout, output, logs_TH, gradients[0].contiguous(), *found)
        ctx.where[0].call("attention_backward", shape, *tensors, dtype=query.dtype)
        return (*found, None)


def _told(query: torch.Tensor, where: Any) -> tuple[Shape, Dropout]:
    _, cu_seqlens, longest, scale, dropout = where
    _, heads, size = query.shape
    assert cu_seqlens.dtype == torch.int32
    assert cu_seqlens.is_contiguous()
    shape = Shape(cu_seqlens.data_ptr(), cu_seqlens.numel() - 1, heads, size, scale)
    return shape, dropout_of(dropout.keys_T, dropout.site, dropout.rate, longest)
