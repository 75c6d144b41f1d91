# mypy: disable-error-code="no-untyped-def"
# A Triton kernel's arguments are pointers and scalars of a GPU program, for which Python has no types.
"""Packs the masks of `ftsys.kernels.dropout` into one bit for each attention probability, once for all kernels.

A number of a mask is the sum of two numbers of 16 bits from the two tables, at places of no alignment. Here a warp
reads consecutive ones. The attention kernels, whose threads hold parts of eight rows, would read each for itself.
"""

import torch
import triton
import triton.language as tl

from ftsys.kernels.dropout import AttentionDropout, check_width, mask_tables, threshold
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern
from ftsys.kernels.triton_attention.blocks import in_reach, sequence_bounds

TOKENS, WORDS, WARPS = 16, 4, 4
"""Tokens and words of the masks that a program packs at once."""


@triton.jit
def _mask_bits(
    bits, bounds, one, other, first, second, heads, words, lowest, reach, WINDOWED: tl.constexpr,
    TOKENS: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """Pack TOKENS rows of one sequence and head; `one` and `other` (T, H) are the windows' starts in the tables."""
    sequence, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    start, length = sequence_bounds(bounds, sequence)
    begin = tl.program_id(1) * TOKENS
    if begin >= length:
        return
    places = begin + tl.arange(0, TOKENS)
    rows, here = (start + places) * heads + head, places < length
    one_M, other_M = tl.load(one + rows, mask=here, other=0), tl.load(other + rows, mask=here, other=0)
    lanes = tl.arange(0, 32 * WORDS)
    first_key, end_key = in_reach(begin, length, reach, WINDOWED, TOKENS, 32 * WORDS)
    for key_block in range(first_key, end_key, 32 * WORDS):
        columns = key_block + lanes
        inside = here[:, None] & (columns[None, :] < length)
        numbers = tl.load(first + one_M[:, None] + columns[None, :], mask=inside, other=0)
        numbers = (numbers + tl.load(second + other_M[:, None] + columns[None, :], mask=inside, other=0)).to(tl.int16)
        kept = (numbers.to(tl.int32) >= lowest).to(tl.int32) << (lanes % 32)[None, :]
        packed = tl.sum(tl.reshape(kept, (TOKENS, WORDS, 32)), 2)  # no two of the 32 share a bit
        at = key_block // 32 + tl.arange(0, WORDS)
        tl.store(bits + rows[:, None] * words + at[None, :], packed, mask=here[:, None] & (at[None, :] < words))


def mask_bits(
    dropout: AttentionDropout, layout: PackedLayout, heads: int, pattern: Pattern = PLAIN
) -> torch.Tensor | None:
    """Return the masks of a layer's attention, int32 (T, H, words): bit j % 32 of word j // 32 is 1 if key j is kept.

    None without keyed dropout. Bits of keys that a query does not see mean nothing: those after the sequence's end and
    outside the pattern's window.

    Raises:
        ValueError: the longest sequence is longer than a window of the tables.
    """
    starts = dropout.windows_TH(heads)
    if starts is None:
        return None
    check_width(layout.max_seqlen)
    tokens, words = len(starts[0]), triton.cdiv(layout.max_seqlen, 32)
    bits_THW = torch.empty((tokens, heads, words), dtype=torch.int32, device=starts[0].device)
    if tokens:
        grid = (layout.sequences * heads, triton.cdiv(layout.max_seqlen, TOKENS))
        given = (layout.cu_seqlens, *starts, *mask_tables(bits_THW.device), heads, words, threshold(dropout.rate)[0])
        limits = {"reach": pattern.window or 0, "WINDOWED": pattern.window is not None}
        _mask_bits[grid](bits_THW, *given, **limits, TOKENS=TOKENS, WORDS=WORDS, num_warps=WARPS)
    return bits_THW
