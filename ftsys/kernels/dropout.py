"""Applies dropout with masks keyed by the example: the same for any world size, micro-batch, packing and resume.

Whether feature d of a token is kept depends only on (seed, step, example id, position, site, d). A site is one dropout
module of the model. There is no random generator state to save in checkpoints, or to restore when activations are
recomputed.

The key of a token is hashed once per site, not once per element. The hash selects a window from each of two fixed
tables of uniform 16-bit numbers. The sum of the two windows modulo 2**16 is uniform again, and its elements are
compared with the dropout rate. The windows of two tokens are equal in both tables with probability 2**-40; numbers of
tokens that differ in one window are independent. Reading rows of a table is many times faster than drawing each
element. `ftsys.kernels.batch_windows` hashes the keys for all sites of a batch at once. The mask is saved for the
backward pass, one byte per element.
"""

from collections.abc import Callable
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
MIX = ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB))


Windows = tuple[torch.Tensor, torch.Tensor]
"""The start of each key's window in the first and in the second table, int32 of the keys' shape."""


def mix(keys: torch.Tensor) -> torch.Tensor:
    """Return splitmix64's finalizer of int64 numbers, treated as unsigned: each input bit changes all output bits."""
    for shift, factor in MIX:
        keys = (keys ^ _shifted(keys, shift)) * _signed(factor)
    return keys ^ _shifted(keys, 31)


def _mix_number(number: int) -> int:
    """Return what `mix` makes of one number, computed on the host: a device would have to be sent the number first."""
    number &= (1 << 64) - 1
    for shift, factor in MIX:
        number = (number ^ number >> shift) * factor & (1 << 64) - 1
    return _signed(number ^ number >> 31)


def _shifted(keys: torch.Tensor, shift: int) -> torch.Tensor:
    # torch's right shift of int64 copies the sign bit, so these bits are cleared.
    return (keys >> shift) & ((1 << (64 - shift)) - 1)


def _signed(value: int) -> int:
    return (value & (1 << 64) - 1) - (1 << 64 if value & 1 << 63 else 0)


def token_keys(seed: int, step: int, example_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return one int64 key per token; its shape is the broadcast shape of `example_ids` and `positions` (int64).

    `seed` is below 2**32. `step` counts optimizer steps from 0. `positions` count from 0 in each sequence.
    """
    return mix(mix(example_ids.to(torch.int64) + run_key(seed, step)) + positions)


def run_key(seed: int, step: int) -> int:
    """Return the number that is added to each example id before it is hashed, as an int64."""
    return _mix_number(seed * _SITE_STRIDE + step * _STEP_STRIDE + 1)


def head_keys(keys_T: torch.Tensor, heads: int) -> torch.Tensor:
    """Return one key per token and head, int64 (T, H)."""
    return mix(keys_T[:, None] + torch.arange(1, heads + 1, device=keys_T.device))


def uniform_rows(keys: torch.Tensor, site: int, width: int) -> torch.Tensor:
    """Return uniform int16 numbers (from -2**15 to 2**15 - 1) of `keys` (int64) at `site`, (*keys.shape, width).

    Raises:
        ValueError: `width` is larger than WIDEST.
    """
    return rows_of(windows(keys + site_offset(site)), width)


def windows(keys: torch.Tensor) -> Windows:
    """Return the windows of `keys`, to which the offset of their site has been added."""
    hashed, last = mix(keys), (1 << WINDOWS_LOG2) - 1
    return (hashed & last).int(), ((hashed >> WINDOWS_LOG2) & last).int()


def rows_of(starts: Windows, width: int) -> torch.Tensor:
    """Return the uniform numbers of windows, int16 (*starts.shape, width). Raises ValueError as `uniform_rows`."""
    check_width(width)
    first, second = mask_tables(starts[0].device)
    shape = (1 << WINDOWS_LOG2, width)
    rows = first.as_strided(shape, (1, 1)).index_select(0, starts[0].flatten())
    rows += second.as_strided(shape, (1, 1)).index_select(0, starts[1].flatten())
    return rows.view(*starts[0].shape, width)


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


def kept_mask(starts: Windows, width: int, rate: float) -> torch.Tensor:
    """Return True for kept elements, bool (*starts.shape, width)."""
    rows, (lowest, _) = rows_of(starts, width), threshold(rate)
    if lowest > LEVELS // 2 - 1:  # no int16 number
        return torch.zeros_like(rows, dtype=torch.bool)
    return rows >= lowest


def scaled(x: torch.Tensor, mask: torch.Tensor, factor: float) -> torch.Tensor:
    """Return x * mask * factor in one operation, the product in float32 where `x` has 16 bits."""
    return torch.ops.aten.native_dropout_backward(x, mask, factor)


class _Dropout(torch.autograd.Function):
    """Computes x * mask / (1 - rate) and saves the mask."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, first: torch.Tensor, second: torch.Tensor, rate: float) -> torch.Tensor:
        mask, ctx.factor = kept_mask((first, second), x.shape[-1], rate), threshold(rate)[1]
        ctx.save_for_backward(mask)
        return scaled(x, mask, ctx.factor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return scaled(gradients[0], ctx.saved_tensors[0], ctx.factor), None, None, None


def windowed_dropout(x: torch.Tensor, starts: Windows, rate: float) -> torch.Tensor:
    """Apply dropout to `x` (*starts.shape, width), any floating dtype, with the masks of these windows.

    Each element is kept with probability p = 1 - rate, exact to 2**-17, and divided by p.
    """
    kept: torch.Tensor = _Dropout.apply(x, *starts, rate)
    return kept


def keyed_dropout(x: torch.Tensor, keys: torch.Tensor, site: int, rate: float) -> torch.Tensor:
    """Apply `windowed_dropout` to `x` (*keys.shape, width) with the masks of `keys` (int64) at `site`."""
    return windowed_dropout(x, windows(keys + site_offset(site)), rate)


@dataclass(frozen=True, eq=False)
class AttentionDropout:
    """Describes dropout of one layer's attention probabilities: rate, site, and keys of the batch's tokens.

    `keys_T` is int64 (T,); None means masks from torch's generator. The mask of a probability depends on the query's
    token, the head and the key's position in the sequence.
    """

    rate: float = 0.0
    site: int = 0
    keys_T: torch.Tensor | None = None
    known: Callable[[int, int], Windows] | None = None
    """Returns the windows (T, H) of a site and a number of heads, where they are hashed for all layers at once."""

    def keys_TH(self, heads: int) -> torch.Tensor | None:
        """Return one key per token and head, int64 (T, H); None without keyed dropout."""
        return None if self.keys_T is None or self.rate == 0 else head_keys(self.keys_T, heads)

    def windows_TH(self, heads: int) -> Windows | None:
        """Return the windows of each token and head, int32 (T, H); None without keyed dropout."""
        if self.keys_T is None or self.rate == 0:
            return None
        if self.known is not None:
            return self.known(self.site, heads)
        return windows(head_keys(self.keys_T, heads) + site_offset(self.site))

    def of(self, weights: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
        """Apply dropout to `weights` (..., L) with one key (...) per row, or by torch's generator if `keys` is None."""
        return self.by_windows(weights, None if keys is None else windows(keys + site_offset(self.site)))

    def by_windows(self, weights: torch.Tensor, starts: Windows | None) -> torch.Tensor:
        """Apply dropout to `weights` (..., L) with one window (...) per row, or by torch's generator if None."""
        if starts is None:
            return torch.nn.functional.dropout(weights, self.rate, training=self.rate > 0)
        return windowed_dropout(weights, starts, self.rate)


NO_DROPOUT = AttentionDropout()
