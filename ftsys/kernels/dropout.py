"""Applies dropout with masks keyed by the example: the same for any world size, micro-batch, packing and resume.

Whether feature d of a token is kept depends only on (seed, step, example id, position, site, d). A site is one dropout
module of the model. There is no random generator state to save in checkpoints, or to restore when activations are
recomputed.

The key of a token is hashed once per site, not once per element. The hash selects a window from each of two fixed
tables of uniform 16-bit numbers. The sum of the two windows modulo 2**16 is uniform again, and its elements are
compared with the dropout rate. The windows of two tokens are equal in both tables with probability 2**-40; numbers of
tokens that differ in one window are independent. Reading rows of a table is many times faster than drawing each
element. The mask is computed again in the backward pass instead of being saved.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

WINDOWS_LOG2 = 20
"""Base-2 logarithm of the number of windows in each table."""
WIDEST = 1 << 14
"""Elements of a window: the largest number of features of a layer, or of keys of an attention row."""

LEVELS = 1 << 16
"""Number of values of a 16-bit number: a dropout rate is rounded to a multiple of 1 / LEVELS."""
_TABLE_SEED = 20_26_11
_SITE_STRIDE = 0x5851_F42D_4C95_7F2D
_STEP_STRIDE = 0x2545_F491_4F6C_DD1D
# splitmix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
_MIX = ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB))


def mix(keys: torch.Tensor) -> torch.Tensor:
    """Return splitmix64's finalizer of int64 numbers, treated as unsigned: each input bit changes all output bits."""
    for shift, factor in _MIX:
        keys = (keys ^ _shifted(keys, shift)) * _signed(factor)
    return keys ^ _shifted(keys, 31)


def _shifted(keys: torch.Tensor, shift: int) -> torch.Tensor:
    return (keys >> shift) & (
        (1 << (64 - shift)) - 1
    )  # torch's right shift of int64 copies the sign bit, so these bits are cleared


def _signed(value: int) -> int:
    return (value & (1 << 64) - 1) - (1 << 64 if value & 1 << 63 else 0)


def token_keys(seed: int, step: int, example_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return one int64 key per token; its shape is the broadcast shape of `example_ids` and `positions` (int64).

    `seed` is below 2**32. `step` counts optimizer steps from 0. `positions` count from 0 in each sequence.
    """
    run_and_step = torch.tensor(_signed(seed * _SITE_STRIDE + step * _STEP_STRIDE + 1), device=positions.device)
    return mix(mix(mix(run_and_step) + example_ids.to(torch.int64)) + positions)


def uniform_rows(keys: torch.Tensor, site: int, width: int) -> torch.Tensor:
    """Return uniform int16 numbers (from -2**15 to 2**15 - 1) of `keys` (int64) at `site`, (*keys.shape, width).

    Raises:
        ValueError: `width` is larger than WIDEST.
    """
    check_width(width)
    first_windows, second_windows = windows(keys.flatten(), site)
    first, second = mask_tables(keys.device)
    shape = (1 << WINDOWS_LOG2, width)
    rows = first.as_strided(shape, (1, 1)).index_select(0, first_windows)
    rows += second.as_strided(shape, (1, 1)).index_select(0, second_windows)
    return rows.view(*keys.shape, width)


def windows(keys: torch.Tensor, site: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the start of each key's window in the first and in the second table, int64 of the keys' shape."""
    hashed, last = mix(keys + site_offset(site)), (1 << WINDOWS_LOG2) - 1
    return hashed & last, _shifted(hashed, WINDOWS_LOG2) & last


def site_offset(site: int) -> int:
    """Return the number that is added to each key at `site`, as an int64."""
    return _signed(site * _SITE_STRIDE)


def check_width(width: int) -> None:
    """Raise ValueError if `width` is larger than a window of the tables."""
    if width > WIDEST:
        raise ValueError(f"a dropout row of {width} elements is wider than {WIDEST}")


@cache
def mask_tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two tables of uniform int16 numbers, (2**WINDOWS_LOG2 + WIDEST,) each, the same on every machine."""
    count = (1 << WINDOWS_LOG2) + WIDEST
    words = np.random.Philox(_TABLE_SEED).random_raw(count // 2)  # 64 bits each, which are four int16 numbers
    numbers = torch.from_numpy(words.view(np.int16).copy()).to(device)
    return numbers[:count], numbers[count:]


def threshold(rate: float) -> tuple[int, float]:
    """Return the lowest int16 number whose element is kept, and the factor 1 / (1 - rate) of kept elements."""
    return round(rate * LEVELS) - LEVELS // 2, 0.0 if rate == 1 else 1 / (1 - rate)


def scaled_mask(keys: torch.Tensor, site: int, width: int, rate: float, dtype: torch.dtype) -> torch.Tensor:
    """Return 0 for dropped and 1 / (1 - rate) for kept elements, in `dtype`; shape (*keys.shape, width)."""
    rows = uniform_rows(keys, site, width)
    lowest, factor = threshold(rate)
    if lowest <= -LEVELS // 2:
        return torch.ones_like(rows, dtype=dtype)
    if lowest > LEVELS // 2 - 1:
        return torch.zeros_like(rows, dtype=dtype)
    kept = rows.clamp_(lowest - 1, lowest).sub_(lowest - 1)  # 0 or 1
    scale = torch.tensor(factor, dtype=dtype)
    if (
        dtype.itemsize == 2
    ):  # multiplying 0 or 1 by the scale's bit pattern is many times faster than a comparison and a conversion
        return kept.mul_(scale.view(torch.int16).item()).view(dtype)
    return kept.to(dtype).mul_(scale)


class _KeyedDropout(torch.autograd.Function):
    """Computes x * mask; the backward pass computes the mask again."""

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
    """Apply dropout to `x` (*keys.shape, width), any floating dtype, with the masks of `keys` (int64) at `site`.

    Each element is kept with probability p = 1 - rate, exact to 2**-17, and divided by p.
    """
    kept: torch.Tensor = _KeyedDropout.apply(x, keys, site, rate)
    return kept


@dataclass(frozen=True, eq=False)
class AttentionDropout:
    """Describes dropout of one layer's attention probabilities: rate, site, and keys of the batch's tokens.

    `keys_T` is int64 (T,); None means masks from torch's generator. The mask of a probability depends on the query's
    token, the head and the key's position in the sequence.
    """

    rate: float = 0.0
    site: int = 0
    keys_T: torch.Tensor | None = None

    def keys_TH(self, heads: int) -> torch.Tensor | None:
        """Return one key per token and head, int64 (T, H); None without keyed dropout."""
        if self.keys_T is None or self.rate == 0:
            return None
        return mix(self.keys_T[:, None] + torch.arange(1, heads + 1, device=self.keys_T.device))

    def of(self, weights: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
        """Apply dropout to `weights` (..., L) with one key (...) per row, or by torch's generator if `keys` is None."""
        if keys is None:
            return torch.nn.functional.dropout(weights, self.rate, training=self.rate > 0)
        return keyed_dropout(weights, keys.contiguous(), self.site, self.rate)


NO_DROPOUT = AttentionDropout()
