# mypy: disable-error-code="no-untyped-def"
# A Triton kernel's arguments are pointers and scalars of a GPU program, for which Python has no types.
"""Computes the outputs of one block of queries: the forward pass."""

import triton
import triton.language as tl

from ftsys.kernels.triton_attention.blocks import (
    in_reach,
    kept_keys,
    load_rows,
    seen_keys,
    sequence_bounds,
    store_rows,
)


@triton.jit
def _forward(
    query, key, value, output, logs, bounds, bits, heads, groups, words, scale,
    kept, reach, DROPS: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, WIDTH: tl.constexpr,
    SIZE: tl.constexpr, QUERY_ROW: tl.constexpr, KEY_ROW: tl.constexpr, OWN: tl.constexpr, VISITED: tl.constexpr,
):  # fmt: skip
    sequence, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    start, length = sequence_bounds(bounds, sequence)
    begin = tl.program_id(1) * OWN
    if begin >= length:
        return
    stride, columns = heads * WIDTH, tl.arange(0, SIZE)
    key_shift = start * KEY_ROW + head // (heads // groups) * WIDTH
    places = begin + tl.arange(0, OWN)
    here, rows = places < length, (start + places) * heads + head
    q = load_rows(query + start * QUERY_ROW + head * WIDTH, places, length, QUERY_ROW, columns, WIDTH, SIZE)
    largest = tl.full((OWN,), -1e30, tl.float32)
    sums, total = tl.zeros((OWN,), tl.float32), tl.zeros((OWN, SIZE), tl.float32)
    first_key, end_key = in_reach(begin, length, reach, WINDOWED, OWN, VISITED)
    if CAUSAL:
        end_key = tl.minimum(begin + OWN, length)
    for key_block in range(first_key, end_key, VISITED):
        others = key_block + tl.arange(0, VISITED)
        k = load_rows(key + key_shift, others, length, KEY_ROW, columns, WIDTH, SIZE)
        v = load_rows(value + key_shift, others, length, KEY_ROW, columns, WIDTH, SIZE)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(seen_keys(places, others, length, reach, CAUSAL, WINDOWED), scores, -1e30)
        # A row without a visible key so far adds ones to `sums`; its first visible score sets `decay` to 0 and removes
        # them.
        higher = tl.maximum(largest, tl.max(scores, 1))
        weights, decay = tl.exp2(scores - higher[:, None]), tl.exp2(largest - higher)
        sums = sums * decay + tl.sum(weights, 1)
        if DROPS:
            weights = tl.where(kept_keys(bits, rows, here, key_block, words, VISITED), weights, 0.0)
        total = total * decay[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = higher
    at = output + start * stride + head * WIDTH
    store_rows(at, total * (kept / sums)[:, None], places, length, stride, columns, WIDTH)
    tl.store(logs + rows, largest + tl.log2(sums), mask=here)
