# mypy: disable-error-code="no-untyped-def"
# A Triton kernel's arguments are pointers and scalars of a GPU program, for which Python has no types.
"""Loads blocks of a sequence, and says which keys a query sees: functions that all kernels of the attention share."""

import triton
import triton.language as tl


@triton.jit
def load_rows(base, places, length, row_stride, columns, WIDTH: tl.constexpr, SIZE: tl.constexpr):
    """Load the rows at `places` of a sequence, (rows, SIZE), with zeros after its end and after WIDTH columns."""
    inside = places[:, None] < length
    if WIDTH < SIZE:
        inside = inside & (columns[None, :] < WIDTH)
    return tl.load(base + places[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(base, rows, places, length, row_stride, columns, WIDTH: tl.constexpr):
    """Store `rows` (rows, SIZE) at `places` of a sequence, up to its end and up to WIDTH columns, in its own dtype."""
    inside = (places[:, None] < length) & (columns[None, :] < WIDTH)
    at = base + places[:, None] * row_stride + columns[None, :]
    tl.store(at, rows.to(base.dtype.element_ty), mask=inside)


@triton.jit
def sequence_bounds(bounds, sequence):
    """Return a sequence's first token, int64 because its product with a row's size may pass 2**31, and its length."""
    start = tl.load(bounds + sequence)
    return start.to(tl.int64), tl.load(bounds + sequence + 1) - start


@triton.jit
def in_reach(first, length, reach, WINDOWED: tl.constexpr, OWN: tl.constexpr, VISITED: tl.constexpr):
    """Return the start of the first block of VISITED rows, and the end of the last one, that the OWN rows see."""
    begin, end = 0, length
    if WINDOWED:
        begin = tl.maximum(first - reach + 1, 0) // VISITED * VISITED
        end = tl.minimum(first + OWN + reach - 1, length)
    return begin, end


@triton.jit
def near(ahead, reach, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Return True where a query sees a key that is `ahead` positions after it; at least one of the two limits holds."""
    seen = ahead < reach
    if CAUSAL:
        seen = ahead <= 0
    if WINDOWED:
        seen = seen & (ahead < reach) & (ahead > -reach)
    return seen


@triton.jit
def seen_keys(places, others, length, reach, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Return True, (M, N) or (1, N), if the query at `places` sees the key at `others`.

    Queries after the sequence's end see the same keys: what is computed for them is stored nowhere.
    """
    seen = others[None, :] < length
    if CAUSAL or WINDOWED:
        seen = seen & near(others[None, :] - places[:, None], reach, CAUSAL, WINDOWED)
    return seen


@triton.jit
def kept_keys(bits, rows_M, here_M, first_key, words, N: tl.constexpr):
    """Return True (M, N) where the N keys from position `first_key` on are kept for the rows `rows_M` of `bits`."""
    places = first_key // 32 + tl.arange(0, N // 32)
    inside = here_M[:, None] & (places[None, :] < words)
    packed = tl.load(bits + rows_M[:, None] * words + places[None, :], mask=inside, other=0)
    each = (packed[:, :, None] >> tl.arange(0, 32)[None, None, :]) & 1
    return tl.reshape(each, (rows_M.shape[0], N)) != 0


@triton.jit
def kept_queries(bits, rows_M, here_M, first_key, words, N: tl.constexpr):
    """Return the transpose of `kept_keys`, True (N, M)."""
    places = first_key // 32 + tl.arange(0, N // 32)
    inside = here_M[None, :] & (places[:, None] < words)
    packed = tl.load(bits + rows_M[None, :] * words + places[:, None], mask=inside, other=0)
    each = (packed[:, None, :] >> tl.arange(0, 32)[None, :, None]) & 1
    return tl.reshape(each, (N, rows_M.shape[0])) != 0
