# mypy: disable-error-code="no-untyped-def"
# A Triton kernel's arguments are pointers and scalars of a GPU program, for which Python has no types.
"""Hashes dropout keys and reads masks in Triton, bit for bit as `ftsys.kernels.dropout` does.

A row's key is hashed inside the kernel that drops its elements, so no mask and no window is kept for the backward pass:
8 bytes a token for all layers, instead of one byte an element and layer.
"""

import triton
import triton.language as tl

from ftsys.kernels.dropout import MIX, WINDOWS_LOG2

FACTOR_1, FACTOR_2 = (tl.constexpr(factor) for _, factor in MIX)
SHIFT_1, SHIFT_2 = (tl.constexpr(shift) for shift, _ in MIX)
LOG2 = tl.constexpr(WINDOWS_LOG2)
LAST = tl.constexpr((1 << WINDOWS_LOG2) - 1)


@triton.jit
def mixed(keys):
    """Return `ftsys.kernels.dropout.mix` of int64 numbers."""
    bits = keys.to(tl.uint64, bitcast=True)
    bits = (bits ^ (bits >> SHIFT_1)) * tl.full((), FACTOR_1, tl.uint64)
    bits = (bits ^ (bits >> SHIFT_2)) * tl.full((), FACTOR_2, tl.uint64)
    return (bits ^ (bits >> 31)).to(tl.int64, bitcast=True)


@triton.jit
def windows_of(keys):
    """Return the starts of the windows of `keys`, to which the offset of their site has been added: int32, twice."""
    hashed = mixed(keys)
    return (hashed & LAST).to(tl.int32), ((hashed >> LOG2) & LAST).to(tl.int32)


@triton.jit
def factors(first, second, key, columns, inside, lowest, kept):
    """Return the dropout factors of a row's columns, `kept` or 0, for a key to which its site has been added."""
    one, other = windows_of(key)
    numbers = tl.load(first + one + columns, mask=inside, other=0)
    numbers = (numbers + tl.load(second + other + columns, mask=inside, other=0)).to(tl.int16)
    return tl.where(numbers.to(tl.int32) >= lowest, kept, 0.0)
