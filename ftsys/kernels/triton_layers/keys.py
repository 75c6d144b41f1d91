# mypy: disable-error-code="no-untyped-def"
# A Triton kernel's arguments are pointers and scalars of a GPU program, for which Python has no types.
"""Computes the dropout keys of a packed batch, and the windows of all attention layers, with one launch each."""

import torch
import triton
import triton.language as tl

from ftsys.kernels.dropout import Windows, run_key
from ftsys.kernels.triton_layers.masks import mixed, windows_of

BLOCK = 256
"""Keys that one program computes."""


@triton.jit(do_not_specialize=["start"])
def _token_keys(bounds, examples, positions, keys, start, BLOCK: tl.constexpr):
    sequence = tl.program_id(0)
    first, end = tl.load(bounds + sequence).to(tl.int64), tl.load(bounds + sequence + 1).to(tl.int64)
    example = mixed(tl.load(examples + sequence).to(tl.int64) + start)
    places = first + tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = places < end
    tl.store(keys + places, mixed(example + tl.load(positions + places, mask=here, other=0)), mask=here)


@triton.jit(do_not_specialize=["count"])
def _head_windows(keys, offsets, one, other, count, heads, BLOCK: tl.constexpr):
    """Write the windows of one site's tokens and heads: `count` of them, token by token."""
    site = tl.program_id(0)
    places = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = places < count
    token_keys = tl.load(keys + places // heads, mask=here, other=0)
    head_keys = mixed(token_keys + places % heads + 1)
    starts, other_starts = windows_of(head_keys + tl.load(offsets + site))
    at = site.to(tl.int64) * count + places
    tl.store(one + at, starts, mask=here)
    tl.store(other + at, other_starts, mask=here)


def token_keys(
    seed: int, step: int, cu_seqlens: torch.Tensor, longest: int, example_ids_S: torch.Tensor, positions_T: torch.Tensor
) -> torch.Tensor:
    """Return the keys of a packed batch's tokens, int64 (T,): those of `ftsys.kernels.dropout.token_keys`.

    `cu_seqlens` is int32 (S + 1,), `longest` the length of the longest sequence; the others are int64.
    """
    # A token that belongs to no sequence keeps key 0.
    keys_T = torch.empty_like(positions_T)
    grid = (len(example_ids_S), triton.cdiv(longest, BLOCK))
    if len(keys_T):
        _token_keys[grid](cu_seqlens, example_ids_S, positions_T, keys_T, run_key(seed, step), BLOCK=BLOCK)
    return keys_T


def head_windows(keys_T: torch.Tensor, offsets_N: torch.Tensor, heads: int) -> Windows:
    """Return the windows of N sites for each token and head, int32 (N, T, H), twice; `offsets_N` is int64."""
    shape = (len(offsets_N), len(keys_T), heads)
    one, other = (torch.empty(shape, dtype=torch.int32, device=keys_T.device) for _ in range(2))
    count = len(keys_T) * heads
    if count:
        grid = (len(offsets_N), triton.cdiv(count, BLOCK))
        _head_windows[grid](keys_T.contiguous(), offsets_N, one, other, count, heads, BLOCK=BLOCK)
    return one, other
