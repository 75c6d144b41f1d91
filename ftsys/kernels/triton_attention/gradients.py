# mypy: disable-error-code="no-untyped-def"
# A Triton kernel's arguments are pointers and scalars of a GPU program, for which Python has no types.
"""Computes the gradients of one block of queries, and of one block of keys and values: the backward pass.

A query after its sequence's end needs no mask in the gradients of keys: its row and its gradient are loaded as zeros.
"""

import triton
import triton.language as tl

from ftsys.kernels.triton_attention.blocks import (
    in_reach,
    kept_keys,
    kept_queries,
    load_rows,
    near,
    seen_keys,
    sequence_bounds,
    store_rows,
)


@triton.jit
def _query_gradients(
    query, key, value, output, gradient, logs, sums, d_query, bounds, bits, heads, groups, words, scale,
    natural_scale, kept, reach, DROPS: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    WIDTH: tl.constexpr, SIZE: tl.constexpr, QUERY_ROW: tl.constexpr,
    KEY_ROW: tl.constexpr, OWN: tl.constexpr, VISITED: tl.constexpr,
):  # fmt: skip
    sequence, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    start, length = sequence_bounds(bounds, sequence)
    begin = tl.program_id(1) * OWN
    if begin >= length:
        return
    stride, columns = heads * WIDTH, tl.arange(0, SIZE)
    shift, query_shift = start * stride + head * WIDTH, start * QUERY_ROW + head * WIDTH
    key_shift = start * KEY_ROW + head // (heads // groups) * WIDTH
    places = begin + tl.arange(0, OWN)
    here, rows = places < length, (start + places) * heads + head
    q = load_rows(query + query_shift, places, length, QUERY_ROW, columns, WIDTH, SIZE)
    g = load_rows(gradient + shift, places, length, stride, columns, WIDTH, SIZE)
    o = load_rows(output + shift, places, length, stride, columns, WIDTH, SIZE)
    log_M = tl.load(logs + rows, mask=here, other=0.0)
    sum_M = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(sums + rows, sum_M, mask=here)
    of_query = tl.zeros((OWN, SIZE), tl.float32)
    first_key, end_key = in_reach(begin, length, reach, WINDOWED, OWN, VISITED)
    if CAUSAL:
        end_key = tl.minimum(begin + OWN, length)
    for key_block in range(first_key, end_key, VISITED):
        others = key_block + tl.arange(0, VISITED)
        k = load_rows(key + key_shift, others, length, KEY_ROW, columns, WIDTH, SIZE)
        v = load_rows(value + key_shift, others, length, KEY_ROW, columns, WIDTH, SIZE)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = seen_keys(places, others, length, reach, CAUSAL, WINDOWED)
        weights = tl.where(seen, tl.exp2(scores - log_M[:, None]), 0.0)
        slopes = tl.dot(g, tl.trans(v), input_precision="ieee")
        if DROPS:
            slopes = tl.where(kept_keys(bits, rows, here, key_block, words, VISITED), slopes * kept, 0.0)
        slopes = weights * (slopes - sum_M[:, None])
        of_query += tl.dot(slopes.to(k.dtype), k, input_precision="ieee")
    store_rows(d_query + query_shift, of_query * natural_scale, places, length, QUERY_ROW, columns, WIDTH)


@triton.jit
def _key_gradients(
    query, key, value, gradient, logs, sums, d_key, d_value, bounds, bits, heads, groups, words, scale,
    natural_scale, kept, reach, DROPS: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    WIDTH: tl.constexpr, SIZE: tl.constexpr, QUERY_ROW: tl.constexpr,
    KEY_ROW: tl.constexpr, OWN: tl.constexpr, VISITED: tl.constexpr,
):  # fmt: skip
    sequence, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    start, length = sequence_bounds(bounds, sequence)
    begin = tl.program_id(1) * OWN
    if begin >= length:
        return
    stride, columns = heads * WIDTH, tl.arange(0, SIZE)
    key_shift = start * KEY_ROW + group * WIDTH
    others = begin + tl.arange(0, OWN)
    k = load_rows(key + key_shift, others, length, KEY_ROW, columns, WIDTH, SIZE)
    v = load_rows(value + key_shift, others, length, KEY_ROW, columns, WIDTH, SIZE)
    of_key, of_value = tl.zeros((OWN, SIZE), tl.float32), tl.zeros((OWN, SIZE), tl.float32)
    first_query, end_query = in_reach(begin, length, reach, WINDOWED, OWN, VISITED)
    if CAUSAL:
        first_query = begin // VISITED * VISITED
    # The query heads of this key head are summed one after another, so the order of summation is fixed.
    for head in range(group * (heads // groups), (group + 1) * (heads // groups)):
        shift, query_shift = start * stride + head * WIDTH, start * QUERY_ROW + head * WIDTH
        for query_block in range(first_query, end_query, VISITED):
            places = query_block + tl.arange(0, VISITED)
            here, rows = places < length, (start + places) * heads + head
            q = load_rows(query + query_shift, places, length, QUERY_ROW, columns, WIDTH, SIZE)
            g = load_rows(gradient + shift, places, length, stride, columns, WIDTH, SIZE)
            # All is transposed, (N, M), so that a thread's weights are where the next product reads them.
            scores = tl.dot(k, tl.trans(q), input_precision="ieee") * scale
            weights = tl.exp2(scores - tl.load(logs + rows, mask=here, other=0.0)[None, :])
            if CAUSAL or WINDOWED:
                weights = tl.where(near(others[:, None] - places[None, :], reach, CAUSAL, WINDOWED), weights, 0.0)
            slopes = tl.dot(v, tl.trans(g), input_precision="ieee")
            kept_weights = weights
            if DROPS:
                kept_NM = kept_queries(bits, rows, here, begin, words, OWN)
                slopes, kept_weights = tl.where(kept_NM, slopes * kept, 0.0), tl.where(kept_NM, weights, 0.0)
            of_value += tl.dot(kept_weights.to(g.dtype), g, input_precision="ieee")
            slopes = weights * (slopes - tl.load(sums + rows, mask=here, other=0.0)[None, :])
            of_key += tl.dot(slopes.to(q.dtype), q, input_precision="ieee")
    store_rows(d_key + key_shift, of_key * natural_scale, others, length, KEY_ROW, columns, WIDTH)
    store_rows(d_value + key_shift, of_value * kept, others, length, KEY_ROW, columns, WIDTH)
