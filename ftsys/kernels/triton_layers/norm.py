# mypy: disable-error-code="no-untyped-def"
# A Triton kernel's arguments are pointers and scalars of a GPU program, for which Python has no types.
"""Computes norm(residual + dropout(x + bias)) in Triton: one launch forward, two backward.

The norm is a LayerNorm, or a RMSNorm where `centered` is False. Everything between loading and storing is float32: the
sum that the norm reads is not rounded to 16 bits, and dropout's factor is not either. The backward pass computes that
sum again from `x` and the residual, which the model keeps anyway, so it stores one number or two for each row, and no
mask. Gradients of the norm's weight and of both biases are summed over blocks of rows, and then over the blocks, in a
fixed order.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from ftsys.kernels.triton_layers.dropout import RowDropout, no_dropout, row_constants
from ftsys.kernels.triton_layers.masks import factors

MOST_BLOCKS = 256
"""Blocks of rows in the backward pass: about two for each multiprocessor of a large GPU, the same on every GPU."""
SUMMED = 64
"""Columns that a program of the last sum computes, and blocks that it loads at once."""


@triton.jit
def _summed(
    x, bias, residual, at, columns, inside, factor,
    BIASED: tl.constexpr, DROPS: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """Return residual + dropout(x + bias) of one row, float32."""
    total = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if BIASED:
        total += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    if DROPS:
        total *= factor
    if ADDS:
        total += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    return total


@triton.jit(do_not_specialize=["offset"])
def _add_norm(
    x, bias, residual, weight, shift, y, stats, keys, first, second, offset, lowest, kept, epsilon, added,
    BIASED: tl.constexpr, DROPS: tl.constexpr, ADDS: tl.constexpr, CENTERED: tl.constexpr, SHIFTS: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, at = columns < WIDTH, row * WIDTH + columns
    factor = 1.0
    if DROPS:
        factor = factors(first, second, tl.load(keys + row) + offset, columns, inside, lowest, kept)
    total = _summed(x, bias, residual, at, columns, inside, factor, BIASED, DROPS, ADDS)
    mean = 0.0
    if CENTERED:
        mean = tl.sum(total, 0) / WIDTH
        total = tl.where(inside, total - mean, 0.0)
    scale = tl.rsqrt(tl.sum(total * total, 0) / WIDTH + epsilon)
    result = total * scale * (tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32) + added)
    if SHIFTS:
        result += tl.load(shift + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, result.to(y.dtype.element_ty), mask=inside)
    tl.store(stats + 2 * row, mean)
    tl.store(stats + 2 * row + 1, scale)


@triton.jit(do_not_specialize=["offset", "rows", "rows_of_block"])
def _add_norm_gradients(
    x, bias, residual, weight, gradient, twin, d_x, d_residual, parts, stats, keys, first, second, offset, lowest, kept,
    added, rows, rows_of_block, BIASED: tl.constexpr, DROPS: tl.constexpr, ADDS: tl.constexpr, CENTERED: tl.constexpr,
    SHIFTS: tl.constexpr, TWIN: tl.constexpr, SHARES: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside = columns < WIDTH
    slopes = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32) + added
    of_weight, of_shift = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    of_bias = tl.zeros((BLOCK,), tl.float32)
    begin = tl.program_id(0).to(tl.int64) * rows_of_block
    for row in range(begin, tl.minimum(begin + rows_of_block, rows)):
        at, factor = row * WIDTH + columns, 1.0
        if DROPS:
            factor = factors(first, second, tl.load(keys + row) + offset, columns, inside, lowest, kept)
        total = _summed(x, bias, residual, at, columns, inside, factor, BIASED, DROPS, ADDS)
        scale = tl.load(stats + 2 * row + 1)
        normal = tl.where(inside, (total - tl.load(stats + 2 * row)) * scale, 0.0)
        given = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        if TWIN:
            given += tl.load(twin + at, mask=inside, other=0.0).to(tl.float32)
        of_weight += given * normal
        of_shift += given
        sloped = given * slopes
        result = sloped - normal * (tl.sum(sloped * normal, 0) / WIDTH)
        if CENTERED:
            result -= tl.sum(sloped, 0) / WIDTH
        result *= scale
        if ADDS:
            tl.store(d_residual + at, result.to(d_residual.dtype.element_ty), mask=inside)
        if DROPS:
            result *= factor
        of_bias += result
        if not SHARES:  # else the gradient of x is that of the residual
            tl.store(d_x + at, result.to(d_x.dtype.element_ty), mask=inside)
    here = parts + block.to(tl.int64) * ((1 + SHIFTS + BIASED) * WIDTH) + columns
    tl.store(here, of_weight, mask=inside)
    if SHIFTS:
        tl.store(here + WIDTH, of_shift, mask=inside)
    if BIASED:
        tl.store(here + (1 + SHIFTS) * WIDTH, of_bias, mask=inside)


@triton.jit(do_not_specialize=["blocks"])
def _sum_blocks(parts, sums, blocks, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Sum `parts` (blocks, WIDTH) into `sums` (WIDTH,), always in the same order."""
    columns, rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, blocks, BLOCK):
        inside = ((start + rows)[:, None] < blocks) & (columns[None, :] < WIDTH)
        total += tl.load(parts + (start + rows)[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0)
    tl.store(sums + columns, tl.sum(total, 0).to(sums.dtype.element_ty), mask=columns < WIDTH)


@dataclass(frozen=True, eq=False)
class NormOf:
    """Describes a norm, and how its input is made of `x`."""

    epsilon: float
    dropout: RowDropout | None = None
    centered: bool = True
    """True for a LayerNorm, False for a RMSNorm."""
    added: float = 0.0
    """Added to the weight: 1 in Gemma, whose weights are stored as their distance from 1."""
    dtype: torch.dtype | None = None
    """Data type of the result; None for that of `x`."""

    def drawn(self, x: torch.Tensor) -> tuple[Any, ...]:
        """Return the kernels' arguments for dropout."""
        return no_dropout(x) if self.dropout is None else self.dropout.arguments(x.shape[-1])


def add_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    how: NormOf,
    residual: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return norm(residual + dropout(x + bias)) * weight + shift, twice, in the same memory.

    `x` and `residual` are (..., D), the others (D,), each float32, float16 or bfloat16. If one of the results is read
    by a matrix product and the other one as a residual, the backward pass adds both gradients while it reads them.
    """
    y, twin = _AddNorm.apply(x, residual, weight, shift, bias, how)
    return y, twin


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        x, residual, weight, shift, bias, how = given
        x, residual = x.contiguous(), residual if residual is None else residual.contiguous()
        y, rows = torch.empty_like(x, dtype=how.dtype or x.dtype), x.numel() // x.shape[-1]
        stats, optional = x.new_empty(rows, 2, dtype=torch.float32), (bias, residual, shift)
        if rows:
            tensors = (x, *(_or(tensor, x) for tensor in (bias, residual)), weight, _or(shift, x), y, stats)
            _add_norm[(rows,)](*tensors, *how.drawn(x), how.epsilon, how.added, **_constants(x, how, *optional))
        ctx.save_for_backward(x, weight, stats, *optional)
        ctx.how = how
        return y, y.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        x, weight, stats, bias, residual, shift = ctx.saved_tensors
        given = [gradient.contiguous() for gradient in gradients if gradient is not None]
        if not given:
            return (None,) * 6
        shares = ctx.how.dropout is None and residual is not None and residual.dtype == x.dtype
        d_residual = None if residual is None else torch.empty_like(residual)
        d_x = d_residual if shares else torch.empty_like(x)
        tensors = (x, _or(bias, x), _or(residual, x), weight, given[0], given[-1], d_x, _or(d_residual, x))
        constants = _constants(x, ctx.how, bias, residual, shift) | {"TWIN": len(given) > 1, "SHARES": shares}
        sums = _parameter_gradients(tensors, stats, ctx.how, constants)
        d_shift = None if shift is None else sums[1].to(shift.dtype)
        d_bias = None if bias is None else sums[-1].to(bias.dtype)
        return d_x, d_residual, sums[0], d_shift, d_bias, None


def _parameter_gradients(
    tensors: tuple[torch.Tensor, ...], stats: torch.Tensor, how: NormOf, constants: dict[str, Any]
) -> torch.Tensor:
    """Write the gradients of `x` and the residual; return those of weight, shift and bias, (1 to 3, D)."""
    x, weight, rows = tensors[0], tensors[3], len(stats)
    rows_of_block = triton.cdiv(rows, MOST_BLOCKS)
    blocks, summed = triton.cdiv(rows, max(1, rows_of_block)), 1 + constants["SHIFTS"] + constants["BIASED"]
    sums = weight.new_empty(summed, x.shape[-1])
    if not rows:
        return sums.zero_()
    parts = stats.new_empty(blocks, sums.numel())
    where = (parts, stats, *how.drawn(x), how.added, rows, rows_of_block)
    _add_norm_gradients[(blocks,)](*tensors, *where, **constants)
    grid = (triton.cdiv(sums.numel(), SUMMED),)
    _sum_blocks[grid](parts, sums, blocks, WIDTH=sums.numel(), BLOCK=SUMMED)
    return sums


def _or(tensor: torch.Tensor | None, instead: torch.Tensor) -> torch.Tensor:
    """Return `tensor`, or a tensor that a kernel gets in its place and does not read."""
    return instead if tensor is None else tensor


def _constants(
    x: torch.Tensor,
    how: NormOf,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    shift: torch.Tensor | None,
) -> dict[str, Any]:
    parts = {"BIASED": bias is not None, "ADDS": residual is not None, "SHIFTS": shift is not None}
    return parts | {"DROPS": how.dropout is not None, "CENTERED": how.centered} | row_constants(x.shape[-1])
