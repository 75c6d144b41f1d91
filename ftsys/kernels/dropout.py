"""Dropout whose masks belong to the examples: the same under any world size, micro-batch, packing and resume.

Whether feature d of a token is kept depends on (seed, step, example id, position, site, d) alone, where a site is one
dropout of the model. No generator has a state, so none is saved, and none is restored when
activations are recomputed.

A counter is hashed once a token, not once an element. The hash picks a window from each of two fixed tables of uniform
16-bit numbers, and the sum of the two windows, modulo 2**16, is uniform again; its elements are compared with the rate.
Two tokens agree in both windows once in 2**40, and numbers of tokens that differ in one window are independent. Reading
rows of a table is many times faster than drawing an element at a time, and the mask is made again for the backward pass
rather than kept.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

WINDOWS_LOG2 = 20
WIDEST = 1 << 14
"""The longest row that a window holds: features of a layer, or keys that a query looks at."""

LEVELS = 1 << 16
_TABLE_SEED = 20_26_11
_SITE_STRIDE = 0x5851_F42D_4C95_7F2D
_STEP_STRIDE = 0x2545_F491_4F6C_DD1D
# splitmix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
_MIX = ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB))


def mix(keys: torch.Tensor) -> torch.Tensor:
    """splitmix64's finalizer on int64 numbers, taken as unsigned: every input bit reaches every output bit."""
    for shift, factor in _MIX:
        keys = (keys ^ _shifted(keys, shift)) * _signed(factor)
    return keys ^ _shifted(keys, 31)


def _shifted(keys: torch.Tensor, shift: int) -> torch.Tensor:
    return (keys >> shift) & ((1 << (64 - shift)) - 1)  # torch's shift of int64 copies the sign


def _signed(value: int) -> int:
    return (value & (1 << 64) - 1) - (1 << 64 if value & 1 << 63 else 0)


def token_keys(seed: int, step: int, example_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """int64 keys, one a token, of the shape that `example_ids` and `positions` (int64) have together.

    `seed` is below 2**32; `step` counts optimizer steps from 0; `positions` count from 0 in each sequence.
    """
    run_and_step = torch.tensor(_signed(seed * _SITE_STRIDE + step * _STEP_STRIDE + 1), device=positions.device)
    return mix(mix(mix(run_and_step) + example_ids.to(torch.int64)) + positions)


def uniform_rows(keys: torch.Tensor, site: int, width: int) -> torch.Tensor:
    """Uniform int16 numbers (from -2**15 to 2**15 - 1), shape (*keys.shape, width), of `keys` at `site`.

    Raises ValueError for a row wider than the tables' windows.
    """
    check_width(width)
    one, other = windows(keys.flatten(), site)
    first, second = mask_tables(keys.device)
    shape = (1 << WINDOWS_LOG2, width)
    rows = first.as_strided(shape, (1, 1)).index_select(0, one)
    rows += second.as_strided(shape, (1, 1)).index_select(0, other)
    return rows.view(*keys.shape, width)


def windows(keys: torch.Tensor, site: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the rows of `keys` at `site` begin in either table, int64 of the keys' shape."""
    hashed, last = mix(keys + site_offset(site)), (1 << WINDOWS_LOG2) - 1
    return hashed & last, _shifted(hashed, WINDOWS_LOG2) & last


def site_offset(site: int) -> int:
    """What is added to every key at `site`, as an int64."""
    return _signed(site * _SITE_STRIDE)


def check_width(width: int) -> None:
    """Raise ValueError for a row wider than the tables' windows."""
    if width > WIDEST:
        raise ValueError(f"a dropout row of {width} elements is wider than {WIDEST}")


@cache
def mask_tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tables of uniform int16 numbers, the same on every machine."""
    count = (1 << WINDOWS_LOG2) + WIDEST
    words = np.random.Philox(_TABLE_SEED).random_raw(count // 2)  # 64 bits each: four numbers
    numbers = torch.from_numpy(words.view(np.int16).copy()).to(device)
    return numbers[:count], numbers[count:]


def threshold(rate: float) -> tuple[int, float]:
    """The lowest number of a row that is kept, and what a kept element is multiplied by."""
    return round(rate * LEVELS) - LEVELS // 2, 0.0 if rate == 1 else 1 / (1 - rate)


def scaled_mask(keys: torch.Tensor, site: int, width: int, rate: float, dtype: torch.dtype) -> torch.Tensor:
    """0 where an element is dropped, 1 / (1 - rate) where it is kept; shape (*keys.shape, width)."""
    rows = uniform_rows(keys, site, width)
    lowest, factor = threshold(rate)
    if lowest <= -LEVELS // 2:
        return torch.ones_like(rows, dtype=dtype)
    if lowest > LEVELS // 2 - 1:
        return torch.zeros_like(rows, dtype=dtype)
    kept = rows.clamp_(lowest - 1, lowest).sub_(lowest - 1)  # 0 or 1
    scale = torch.tensor(factor, dtype=dtype)
    if dtype.itemsize == 2:  # a product of bit patterns is many times faster here than a comparison and a conversion
        return kept.mul_(scale.view(torch.int16).item()).view(dtype)
    return kept.to(dtype).mul_(scale)


class _KeyedDropout(torch.autograd.Function):
    """x * mask, with the mask made anew for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, keys: torch.Tensor, site: int, rate: float) -> torch.Tensor:
        ctx.save_for_backward(keys)
        ctx.site, ctx.rate = site, rate
        return x * scaled_mask(keys, site, x.shape[-1], rate, x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (keys,) = ctx.saved_tensors
        gradient = gradients[0]
        mask = scaled_mask(keys, ctx.site, gradient.shape[-1], ctx.rate, gradient.dtype)
        return gradient * mask, None, None, None


def keyed_dropout(x: torch.Tensor, keys: torch.Tensor, site: int, rate: float) -> torch.Tensor:
    """Dropout of `x` (*keys.shape, width), any floating dtype, with masks of `keys` (int64) at `site`.

    Each element is kept with probability 1 - rate, to within 2**-17, and divided by it.
    """
    kept: torch.Tensor = _KeyedDropout.apply(x, keys, site, rate)
    return kept


@dataclass(frozen=True, eq=False)
class AttentionDropout:
    """Dropout of one layer's attention probabilities: `keys_T` (int64) of a batch's tokens, the site and the rate.

    A probability's mask belongs to the query's token, the head and the key's place in the sequence.
    """

    rate: float = 0.0
    site: int = 0
    keys_T: torch.Tensor | None = None

    def keys_TH(self, heads: int) -> torch.Tensor | None:
        """Keys of each token's heads, int64 (T, H); None where nothing is dropped."""
        if self.keys_T is None or self.rate == 0:
            return None
        return mix(self.keys_T[:, None] + torch.arange(1, heads + 1, device=self.keys_T.device))

    def of(self, weights: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
        """`weights` (..., L) after dropout, with a key (...) for each row, or drawn by torch where there are none."""
        if keys is None:
            return torch.nn.functional.dropout(weights, self.rate, training=self.rate > 0)
        return keyed_dropout(weights, keys.contiguous(), self.site, self.rate)


NO_DROPOUT = AttentionDropout()
