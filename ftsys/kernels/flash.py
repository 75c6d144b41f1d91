# mypy: disable-error-code="no-untyped-def"
# A kernel's arguments are pointers and numbers of a GPU program, for which Python has no types.
"""Attention in Triton for GPUs: variable lengths without padding, no scores in memory, dropout keyed by the example.

The blockwise softmax and its backward pass are FlashAttention's (Dao, "FlashAttention-2", 2023); the masks are those of
`ftsys.kernels.dropout`, read from its two tables by windows that are hashed once a token and head. A program works on a
block of one sequence's queries or keys for one head; blocks behind a shorter sequence's end return at once.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ftsys.kernels.dropout import AttentionDropout, check_width, mask_tables, threshold, windows
from ftsys.kernels.layout import PackedLayout

BLOCKS = {2: 64, 4: 32}
"""Rows of a block, by an element's bytes: what is loaded at once must fit a multiprocessor's shared memory."""
SIZES = (16, 32, 64, 128)
"""Head sizes: powers of two from the smallest that a matrix unit takes."""


@triton.jit
def _factors(first, second, windows_one, windows_other, places_N, lowest, kept):
    numbers = tl.load(first + windows_one[:, None] + places_N[None, :])
    numbers = (numbers + tl.load(second + windows_other[:, None] + places_N[None, :])).to(tl.int16)
    return tl.where(numbers.to(tl.int32) >= lowest, kept, 0.0)


@triton.jit
def _rows(base, places, length, row_stride, columns):
    return tl.load(base + places[:, None] * row_stride + columns[None, :], mask=places[:, None] < length, other=0.0)


@triton.jit
def _forward(
    query, key, value, output, logs, bounds, one, other, first, second, heads, scale, lowest, kept,
    DROPS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sequence, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    start = tl.load(bounds + sequence)
    length = tl.load(bounds + sequence + 1) - start
    if tl.program_id(0) * BLOCK >= length:
        return
    stride = heads * SIZE
    shift, columns = start * stride + head * SIZE, tl.arange(0, SIZE)
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = places < length
    q = _rows(query + shift, places, length, stride, columns)
    if DROPS:
        one_M = tl.load(one + (start + places) * heads + head, mask=here, other=0)
        other_M = tl.load(other + (start + places) * heads + head, mask=here, other=0)
    largest = tl.full((BLOCK,), -1e30, tl.float32)
    sums, total = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    for begin in range(0, length, BLOCK):
        others = begin + tl.arange(0, BLOCK)
        k, v = (
            _rows(key + shift, others, length, stride, columns),
            _rows(value + shift, others, length, stride, columns),
        )
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(others[None, :] < length, scores, -1e30)
        higher = tl.maximum(largest, tl.max(scores, 1))
        weights, decay = tl.exp(scores - higher[:, None]), tl.exp(largest - higher)
        sums = sums * decay + tl.sum(weights, 1)
        if DROPS:
            weights = weights * _factors(first, second, one_M, other_M, others, lowest, kept)
        total = total * decay[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = higher
    at = output + shift + places[:, None] * stride + columns[None, :]
    tl.store(at, (total / sums[:, None]).to(output.dtype.element_ty), mask=here[:, None])
    tl.store(logs + (start + places) * heads + head, largest + tl.log(sums), mask=here)


@triton.jit
def _weights(q, k, places, others, length, log_M, scale):
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    return tl.where((places[:, None] < length) & (others[None, :] < length), tl.exp(scores - log_M[:, None]), 0.0)


@triton.jit
def _key_gradients(
    query, key, value, gradient, logs, sums, d_key, d_value, bounds, one, other, first, second, heads, scale, lowest,
    kept, DROPS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sequence, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    start = tl.load(bounds + sequence)
    length = tl.load(bounds + sequence + 1) - start
    if tl.program_id(0) * BLOCK >= length:
        return
    stride = heads * SIZE
    shift, columns = start * stride + head * SIZE, tl.arange(0, SIZE)
    others = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k = _rows(key + shift, others, length, stride, columns)
    v = _rows(value + shift, others, length, stride, columns)
    of_key, of_value = tl.zeros((BLOCK, SIZE), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    for begin in range(0, length, BLOCK):
        places = begin + tl.arange(0, BLOCK)
        here, row = places < length, (start + places) * heads + head
        q = _rows(query + shift, places, length, stride, columns)
        g = _rows(gradient + shift, places, length, stride, columns)
        weights = _weights(q, k, places, others, length, tl.load(logs + row, mask=here, other=0.0), scale)
        slopes = tl.dot(g, tl.trans(v), input_precision="ieee")
        kept_weights = weights
        if DROPS:
            one_M, other_M = tl.load(one + row, mask=here, other=0), tl.load(other + row, mask=here, other=0)
            factors = _factors(first, second, one_M, other_M, others, lowest, kept)
            slopes, kept_weights = slopes * factors, weights * factors
        of_value += tl.dot(tl.trans(kept_weights.to(g.dtype)), g, input_precision="ieee")
        slopes = weights * (slopes - tl.load(sums + row, mask=here, other=0.0)[:, None])
        of_key += tl.dot(tl.trans(slopes.to(q.dtype)), q, input_precision="ieee")
    inside, at = others[:, None] < length, shift + others[:, None] * stride + columns[None, :]
    tl.store(d_key + at, (of_key * scale).to(d_key.dtype.element_ty), mask=inside)
    tl.store(d_value + at, of_value.to(d_value.dtype.element_ty), mask=inside)


@triton.jit
def _query_gradients(
    query, key, value, gradient, logs, sums, d_query, bounds, one, other, first, second, heads, scale, lowest, kept,
    DROPS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sequence, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    start = tl.load(bounds + sequence)
    length = tl.load(bounds + sequence + 1) - start
    if tl.program_id(0) * BLOCK >= length:
        return
    stride = heads * SIZE
    shift, columns = start * stride + head * SIZE, tl.arange(0, SIZE)
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here, row = places < length, (start + places) * heads + head
    q = _rows(query + shift, places, length, stride, columns)
    g = _rows(gradient + shift, places, length, stride, columns)
    log_M, sum_M = tl.load(logs + row, mask=here, other=0.0), tl.load(sums + row, mask=here, other=0.0)
    if DROPS:
        one_M, other_M = tl.load(one + row, mask=here, other=0), tl.load(other + row, mask=here, other=0)
    of_query = tl.zeros((BLOCK, SIZE), tl.float32)
    for begin in range(0, length, BLOCK):
        others = begin + tl.arange(0, BLOCK)
        k = _rows(key + shift, others, length, stride, columns)
        v = _rows(value + shift, others, length, stride, columns)
        weights = _weights(q, k, places, others, length, log_M, scale)
        slopes = tl.dot(g, tl.trans(v), input_precision="ieee")
        if DROPS:
            slopes = slopes * _factors(first, second, one_M, other_M, others, lowest, kept)
        slopes = weights * (slopes - sum_M[:, None])
        of_query += tl.dot(slopes.to(k.dtype), k, input_precision="ieee")
    at = d_query + shift + places[:, None] * stride + columns[None, :]
    tl.store(at, (of_query * scale).to(d_query.dtype.element_ty), mask=here[:, None])


def takes(query_THK: torch.Tensor, key_TGK: torch.Tensor, value_TGK: torch.Tensor) -> bool:
    """Whether the kernels are made for these tensors: a size of SIZES, no float64."""
    same = query_THK.dtype == key_TGK.dtype == value_TGK.dtype and query_THK.element_size() in BLOCKS
    return same and query_THK.shape[-1] in SIZES


def flash_attention(
    query_THK: torch.Tensor,
    key_THK: torch.Tensor,
    value_THK: torch.Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout,
) -> torch.Tensor:
    """As the kernels of `ftsys.kernels.attention`, for what `takes` says and a plain pattern."""
    where = (layout, scale, dropout)
    output: torch.Tensor = _Flash.apply(query_THK, key_THK, value_THK, where)
    return output


class _Flash(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, where: Any) -> torch.Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        output, logs_TH = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
        grid, told, constants = _launch(query, *where)
        _forward[grid](query, key, value, output, logs_TH, *told, **constants)
        ctx.save_for_backward(query, key, value, output, logs_TH)
        ctx.where = where
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, logs_TH = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        sums_TH = (gradient.float() * output).sum(-1)
        d_query, d_key, d_value = (torch.empty_like(query) for _ in range(3))
        grid, told, constants = _launch(query, *ctx.where)
        given = (query, key, value, gradient, logs_TH, sums_TH)
        _key_gradients[grid](*given, d_key, d_value, *told, **constants)
        _query_gradients[grid](*given, d_query, *told, **constants)
        return d_query, d_key, d_value, None


def _launch(
    query: torch.Tensor, layout: PackedLayout, scale: float, dropout: AttentionDropout
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The grid, the arguments that all kernels share, and what they are compiled for."""
    heads, size = query.shape[1:]
    keys_TH, drops = dropout.keys_TH(heads), dropout.rate > 0
    one = other = first = second = query
    if keys_TH is not None:
        check_width(layout.max_seqlen)
        one, other = windows(keys_TH, dropout.site)
        first, second = mask_tables(query.device)
    block = BLOCKS[query.element_size()]
    grid = (triton.cdiv(layout.max_seqlen, block), layout.sequences * heads)
    told = (layout.cu_seqlens, one, other, first, second, heads, scale, *threshold(dropout.rate))
    return grid, told, {"DROPS": drops, "SIZE": size, "BLOCK": block}
