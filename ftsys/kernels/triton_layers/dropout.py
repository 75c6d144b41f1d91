# mypy: disable-error-code="no-untyped-def"
# A Triton kernel's arguments are pointers and scalars of a GPU program, for which Python has no types.
"""Computes keyed dropout with one launch forward and one backward; the mask is hashed again in the backward pass."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from ftsys.kernels.dropout import check_width, mask_tables, site_offset, threshold
from ftsys.kernels.triton_layers.masks import factors

ELEMENTS_PER_WARP = 256
"""Elements of a row that one warp computes: 8 a thread, so that a row of BERT-base takes 4 warps."""
MOST_WARPS = 16


@dataclass(frozen=True, eq=False)
class RowDropout:
    """Describes dropout of rows: its rate, its site, and one int64 key for each row."""

    keys: torch.Tensor
    site: int
    rate: float

    def arguments(self, width: int) -> tuple[Any, ...]:
        """Return the kernels' arguments. Raises ValueError if rows of `width` elements are too wide for the tables."""
        check_width(width)
        return (self.keys, *mask_tables(self.keys.device), site_offset(self.site), *threshold(self.rate))


def no_dropout(x: torch.Tensor) -> tuple[Any, ...]:
    """Return arguments in place of `RowDropout.arguments`, for kernels that drop nothing; they read no tensor."""
    return (x, x, x, 0, 0, 1.0)


@triton.jit(do_not_specialize=["offset"])
def _drop(x, y, keys, first, second, offset, lowest, kept, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = columns < WIDTH
    kept_or_zero = factors(first, second, tl.load(keys + row) + offset, columns, inside, lowest, kept)
    at = row * WIDTH + columns
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * kept_or_zero
    tl.store(y + at, values.to(y.dtype.element_ty), mask=inside)


def row_constants(width: int) -> dict[str, int]:
    """Return the compile-time constants of a kernel whose program computes one row of `width` elements at a time."""
    block = int(triton.next_power_of_2(width))
    return {"WIDTH": width, "BLOCK": block, "num_warps": min(MOST_WARPS, max(1, block // ELEMENTS_PER_WARP))}


def keyed_dropout(x: torch.Tensor, dropout: RowDropout) -> torch.Tensor:
    """Apply dropout to `x` (..., D) with the masks of `ftsys.kernels.dropout.keyed_dropout`; keys are (...)."""
    y: torch.Tensor = _KeyedDropout.apply(x, dropout)
    return y


class _KeyedDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dropout: RowDropout) -> torch.Tensor:
        ctx.dropout = dropout
        return _dropped(x, dropout)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _dropped(gradients[0], ctx.dropout), None


def _dropped(x: torch.Tensor, dropout: RowDropout) -> torch.Tensor:
    x, width = x.contiguous(), x.shape[-1]
    y, rows = torch.empty_like(x), x.numel() // width
    if rows:
        _drop[(rows,)](x, y, *dropout.arguments(width), **row_constants(width))
    return y
