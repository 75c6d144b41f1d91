# mypy: disable-error-code="no-untyped-def"
# A Triton kernel's arguments are pointers and scalars of a GPU program, for which Python has no types.
"""Computes attention on GPUs in Triton: variable lengths without padding, no scores in memory, keyed dropout.

The blockwise softmax and its backward pass follow FlashAttention-2 (Dao, 2023). The dropout masks are those of
`ftsys.kernels.dropout`, read from its two tables by windows that are hashed once per token and head. One program
computes one block of queries or keys of one sequence and one head. A block after the end of a shorter sequence returns
at once.

Names in the kernels: M rows of a block of queries, N rows of a block of keys. `one` and `other` (T, H) int32 are the
starts of the dropout windows in the tables `first` and `second`; `lowest` and `kept` are `dropout.threshold`'s results.
`logs` (T, H) float32 is the log of each row's sum of exponentials. `reach` is the pattern's window in tokens.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ftsys.kernels.dropout import AttentionDropout, check_width, mask_tables, threshold
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern

BLOCKS = {2: 64, 4: 32}
"""Rows of a block, by bytes per element."""
WIDE_ROW = 256
"""Bytes of a row above which a block has half the rows, to fit the smallest shared memory of a GPU, 99 KiB."""
SMALLEST, LARGEST = 16, 128
"""Head sizes: a smaller head is padded to SMALLEST, the smallest size of a matrix unit; LARGEST is the limit."""

WARPS = 8
"""Warps per program. With Triton's default of 4, all three kernels spill registers on an H100 (benchmarks/LOG.md)."""


@triton.jit
def _factors(first, second, windows_one, windows_other, places_N, lowest, kept):
    """Return the dropout factors (M, N): `kept` or 0."""
    numbers = tl.load(first + windows_one[:, None] + places_N[None, :])
    numbers = (numbers + tl.load(second + windows_other[:, None] + places_N[None, :])).to(tl.int16)
    return tl.where(numbers.to(tl.int32) >= lowest, kept, 0.0)


@triton.jit
def _rows(base, places, length, row_stride, columns, WIDTH: tl.constexpr):
    """Load the rows at `places` of a sequence, (BLOCK, SIZE), with zeros after its end and after WIDTH columns."""
    inside = (places[:, None] < length) & (columns[None, :] < WIDTH)
    return tl.load(base + places[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _bounds(bounds, sequence):
    """Return a sequence's first token, int64 because its product with a row's size may pass 2**31, and its length."""
    start = tl.load(bounds + sequence)
    return start.to(tl.int64), tl.load(bounds + sequence + 1) - start


@triton.jit
def _in_reach(first, length, reach, WINDOWED: tl.constexpr, BLOCK: tl.constexpr):
    """Return the start of the first block, and the end of the last one, that the block starting at `first` sees."""
    begin, end = 0, length
    if WINDOWED:
        begin = tl.maximum(first - reach + 1, 0) // BLOCK * BLOCK
        end = tl.minimum(first + BLOCK + reach - 1, length)
    return begin, end


@triton.jit
def _seen(places, others, length, reach, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Return True (M, N) if the query at position `places` sees the key at position `others`."""
    ahead = others[None, :] - places[:, None]
    seen = (places[:, None] < length) & (others[None, :] < length)
    if CAUSAL:
        seen = seen & (ahead <= 0)
    if WINDOWED:
        seen = seen & (ahead < reach) & (ahead > -reach)
    return seen


@triton.jit
def _forward(
    query, key, value, output, logs, bounds, one, other, first, second, heads, groups, scale, lowest, kept, reach,
    DROPS: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    sequence, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    start, length = _bounds(bounds, sequence)
    begin = tl.program_id(1) * BLOCK
    if begin >= length:
        return
    stride, key_stride, columns = heads * WIDTH, groups * WIDTH, tl.arange(0, SIZE)
    shift, key_shift = start * stride + head * WIDTH, start * key_stride + head // (heads // groups) * WIDTH
    places = begin + tl.arange(0, BLOCK)
    here = places < length
    q = _rows(query + shift, places, length, stride, columns, WIDTH)
    if DROPS:
        one_M = tl.load(one + (start + places) * heads + head, mask=here, other=0)
        other_M = tl.load(other + (start + places) * heads + head, mask=here, other=0)
    largest = tl.full((BLOCK,), -1e30, tl.float32)
    sums, total = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    first_key, end_key = _in_reach(begin, length, reach, WINDOWED, BLOCK)
    if CAUSAL:
        end_key = tl.minimum(begin + BLOCK, length)
    for key_block in range(first_key, end_key, BLOCK):
        others = key_block + tl.arange(0, BLOCK)
        k = _rows(key + key_shift, others, length, key_stride, columns, WIDTH)
        v = _rows(value + key_shift, others, length, key_stride, columns, WIDTH)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(_seen(places, others, length, reach, CAUSAL, WINDOWED), scores, -1e30)
        # A row without a visible key so far adds ones to `sums`; its first visible score sets `decay` to 0 and removes
        # them.
        higher = tl.maximum(largest, tl.max(scores, 1))
        weights, decay = tl.exp(scores - higher[:, None]), tl.exp(largest - higher)
        sums = sums * decay + tl.sum(weights, 1)
        if DROPS:
            weights = weights * _factors(first, second, one_M, other_M, others, lowest, kept)
        total = total * decay[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = higher
    at = output + shift + places[:, None] * stride + columns[None, :]
    inside = here[:, None] & (columns[None, :] < WIDTH)
    tl.store(at, (total / sums[:, None]).to(output.dtype.element_ty), mask=inside)
    tl.store(logs + (start + places) * heads + head, largest + tl.log(sums), mask=here)


@triton.jit
def _weights(q, k, seen, log_M, scale):
    """Return the attention probabilities (M, N) before dropout, from the saved logs."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    return tl.where(seen, tl.exp(scores - log_M[:, None]), 0.0)


@triton.jit
def _key_gradients(
    query, key, value, gradient, logs, sums, d_key, d_value, bounds, one, other, first, second, heads, groups, scale,
    lowest, kept, reach, DROPS: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, WIDTH: tl.constexpr,
    SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sequence, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    start, length = _bounds(bounds, sequence)
    begin = tl.program_id(1) * BLOCK
    if begin >= length:
        return
    stride, key_stride, columns = heads * WIDTH, groups * WIDTH, tl.arange(0, SIZE)
    key_shift = start * key_stride + group * WIDTH
    others = begin + tl.arange(0, BLOCK)
    k = _rows(key + key_shift, others, length, key_stride, columns, WIDTH)
    v = _rows(value + key_shift, others, length, key_stride, columns, WIDTH)
    of_key, of_value = tl.zeros((BLOCK, SIZE), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    first_query, end_query = _in_reach(begin, length, reach, WINDOWED, BLOCK)
    if CAUSAL:
        first_query = begin
    # The query heads of this key head are summed one after another, so the order of summation is fixed.
    for head in range(group * (heads // groups), (group + 1) * (heads // groups)):
        shift = start * stride + head * WIDTH
        for query_block in range(first_query, end_query, BLOCK):
            places = query_block + tl.arange(0, BLOCK)
            here, row = places < length, (start + places) * heads + head
            q = _rows(query + shift, places, length, stride, columns, WIDTH)
            g = _rows(gradient + shift, places, length, stride, columns, WIDTH)
            seen = _seen(places, others, length, reach, CAUSAL, WINDOWED)
            weights = _weights(q, k, seen, tl.load(logs + row, mask=here, other=0.0), scale)
            slopes = tl.dot(g, tl.trans(v), input_precision="ieee")
            kept_weights = weights
            if DROPS:
                one_M, other_M = tl.load(one + row, mask=here, other=0), tl.load(other + row, mask=here, other=0)
                factors = _factors(first, second, one_M, other_M, others, lowest, kept)
                slopes, kept_weights = slopes * factors, weights * factors
            of_value += tl.dot(tl.trans(kept_weights.to(g.dtype)), g, input_precision="ieee")
            slopes = weights * (slopes - tl.load(sums + row, mask=here, other=0.0)[:, None])
            of_key += tl.dot(tl.trans(slopes.to(q.dtype)), q, input_precision="ieee")
    inside = (others[:, None] < length) & (columns[None, :] < WIDTH)
    at = key_shift + others[:, None] * key_stride + columns[None, :]
    tl.store(d_key + at, (of_key * scale).to(d_key.dtype.element_ty), mask=inside)
    tl.store(d_value + at, of_value.to(d_value.dtype.element_ty), mask=inside)


@triton.jit
def _query_gradients(
    query, key, value, output, gradient, logs, sums, d_query, bounds, one, other, first, second, heads, groups, scale,
    lowest, kept, reach, DROPS: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, WIDTH: tl.constexpr,
    SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sequence, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    start, length = _bounds(bounds, sequence)
    begin = tl.program_id(1) * BLOCK
    if begin >= length:
        return
    stride, key_stride, columns = heads * WIDTH, groups * WIDTH, tl.arange(0, SIZE)
    shift, key_shift = start * stride + head * WIDTH, start * key_stride + head // (heads // groups) * WIDTH
    places = begin + tl.arange(0, BLOCK)
    here, row = places < length, (start + places) * heads + head
    q = _rows(query + shift, places, length, stride, columns, WIDTH)
    g = _rows(gradient + shift, places, length, stride, columns, WIDTH)
    o, log_M = _rows(output + shift, places, length, stride, columns, WIDTH), tl.load(logs + row, mask=here, other=0.0)
    sum_M = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(sums + row, sum_M, mask=here)
    if DROPS:
        one_M, other_M = tl.load(one + row, mask=here, other=0), tl.load(other + row, mask=here, other=0)
    of_query = tl.zeros((BLOCK, SIZE), tl.float32)
    first_key, end_key = _in_reach(begin, length, reach, WINDOWED, BLOCK)
    if CAUSAL:
        end_key = tl.minimum(begin + BLOCK, length)
    for key_block in range(first_key, end_key, BLOCK):
        others = key_block + tl.arange(0, BLOCK)
        k = _rows(key + key_shift, others, length, key_stride, columns, WIDTH)
        v = _rows(value + key_shift, others, length, key_stride, columns, WIDTH)
        weights = _weights(q, k, _seen(places, others, length, reach, CAUSAL, WINDOWED), log_M, scale)
        slopes = tl.dot(g, tl.trans(v), input_precision="ieee")
        if DROPS:
            slopes = slopes * _factors(first, second, one_M, other_M, others, lowest, kept)
        slopes = weights * (slopes - sum_M[:, None])
        of_query += tl.dot(slopes.to(k.dtype), k, input_precision="ieee")
    at = d_query + shift + places[:, None] * stride + columns[None, :]
    inside = here[:, None] & (columns[None, :] < WIDTH)
    tl.store(at, (of_query * scale).to(d_query.dtype.element_ty), mask=inside)


def padded_size(size: int) -> int:
    """Return the padded size of a head of `size` elements: a power of two."""
    return max(SMALLEST, int(triton.next_power_of_2(size)))


def rows_of_block(padded: int, element_bytes: int) -> int:
    """Return the number of rows of a block, for heads padded to `padded` elements."""
    return BLOCKS[element_bytes] // (2 if padded * element_bytes > WIDE_ROW else 1)


def takes(query_THK: torch.Tensor, key_TGK: torch.Tensor, value_TGK: torch.Tensor) -> bool:
    """Return True if the kernels support these tensors: equal dtypes of 2 or 4 bytes, heads of up to LARGEST."""
    same = query_THK.dtype == key_TGK.dtype == value_TGK.dtype and query_THK.element_size() in BLOCKS
    return same and query_THK.shape[-1] <= LARGEST


def flash_attention(
    query_THK: torch.Tensor,
    key_TGK: torch.Tensor,
    value_TGK: torch.Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout,
    pattern: Pattern = PLAIN,
) -> torch.Tensor:
    """Compute attention as defined in `ftsys.kernels.attention`, on a GPU.

    The tensors are those that `takes` accepts; the pattern must have no relative terms; dropout must be keyed.
    """
    where = (layout, scale, dropout, pattern)
    output: torch.Tensor = _Flash.apply(query_THK, key_TGK, value_TGK, where)
    return output


class _Flash(torch.autograd.Function):
    """Launches the kernels of the forward and the backward pass."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, where: Any) -> torch.Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        output, logs_TH = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
        grid, shared, constants = _launch(query, key, *where)
        _forward[grid(query)](query, key, value, output, logs_TH, *shared, **constants)
        ctx.save_for_backward(query, key, value, output, logs_TH)
        ctx.where = where
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, logs_TH = ctx.saved_tensors
        sums_TH = torch.empty_like(logs_TH)
        d_query, d_key, d_value = (torch.empty_like(states) for states in (query, key, value))
        grid, shared, constants = _launch(query, key, *ctx.where)
        given, rest = (query, key, value), (gradients[0].contiguous(), logs_TH, sums_TH)  # the first writes sums
        _query_gradients[grid(query)](*given, output, *rest, d_query, *shared, **constants)
        _key_gradients[grid(key)](*given, *rest, d_key, d_value, *shared, **constants)
        return d_query, d_key, d_value, None


def _launch(
    query: torch.Tensor,
    key: torch.Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout,
    pattern: Pattern,
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the grid by a tensor's heads, the arguments that all kernels share, and their compile-time constants.

    Sequences times heads is the grid's first dimension, because the second one is limited to 65,535.
    """
    heads, size = query.shape[1:]
    starts, drops, one, other, first, second = dropout.windows_TH(heads), dropout.rate > 0, *[query] * 4
    if starts is not None:
        check_width(layout.max_seqlen)
        (one, other), (first, second) = starts, mask_tables(query.device)
    padded = padded_size(size)
    block = rows_of_block(padded, query.element_size())
    blocks, reach = triton.cdiv(layout.max_seqlen, block), pattern.window or 0
    shared = (layout.cu_seqlens, one, other, first, second, heads, key.shape[1], scale, *threshold(dropout.rate), reach)
    constants = {"DROPS": drops, "CAUSAL": pattern.causal, "WINDOWED": pattern.window is not None, "WIDTH": size}
    constants |= {"SIZE": padded, "BLOCK": block, "num_warps": WARPS}
    return lambda states: (layout.sequences * states.shape[1], blocks), shared, constants
