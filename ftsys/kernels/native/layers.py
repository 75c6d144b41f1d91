"""Computes elementwise parts of a layer in one pass over memory: keyed dropout, and dropout + residual + LayerNorm."""

from typing import Any

import torch

from ftsys.kernels.native.library import DTYPES, Library
from ftsys.kernels.native.structures import Norm, dropout_of

_BLOCKS = 32
"""Number of partial sums over rows in `elementwise.cpp`; the same constant is there."""


def takes(*tensors: torch.Tensor) -> bool:
    """Return True if the kernels support these tensors: on a CPU, all float32 or all bfloat16, not fake tensors."""
    dtype = tensors[0].dtype
    return dtype in DTYPES and all(
        tensor.dtype == dtype and tensor.device.type == "cpu" and type(tensor) in _REAL for tensor in tensors
    )


_REAL = (torch.Tensor, torch.nn.Parameter)
"""Tensor classes that own memory, unlike torch's fake tensors."""


def keyed_dropout(library: Library, x: torch.Tensor, keys: torch.Tensor, site: int, rate: float) -> torch.Tensor:
    """Apply dropout with the same masks as `ftsys.kernels.dropout.keyed_dropout`.

    `x` is (*keys.shape, D), float32 or bfloat16; `keys` are int64.
    """
    y: torch.Tensor = _KeyedDropout.apply(x, (library, keys.contiguous(), site, rate))
    return y


class _KeyedDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, where: Any) -> torch.Tensor:
        ctx.where = where
        return _dropped(x, *where)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _dropped(gradients[0], *ctx.where), None


def _dropped(x: torch.Tensor, library: Library, keys: torch.Tensor, site: int, rate: float) -> torch.Tensor:
    x, width = x.contiguous(), x.shape[-1]
    y = torch.empty_like(x)
    library.call("dropout", x, dropout_of(keys, site, rate, width), y, keys.numel(), width, dtype=x.dtype)
    return y


def add_norm(
    library: Library,
    x: torch.Tensor,
    residual: torch.Tensor,
    norm: torch.nn.LayerNorm,
    keys: torch.Tensor | None,
    site: int,
    rate: float,
) -> torch.Tensor:
    """Return norm(residual + dropout(x)), for tensors of one shape (..., D), float32 or bfloat16.

    `keys` (...) int64 has one dropout key per row; None means no dropout.
    """
    where = (library, norm.eps, keys if keys is None else keys.contiguous(), site, rate)
    y: torch.Tensor = _AddNorm.apply(x, residual, norm.weight, norm.bias, where)
    return y


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, where: Any
    ) -> torch.Tensor:
        library, epsilon, keys, site, rate = where
        x, residual, width = x.contiguous(), residual.contiguous(), x.shape[-1]
        total, y, (means, scales) = torch.empty_like(x), torch.empty_like(x), _per_row(x)
        shape, dropout = Norm(x.numel() // width, width, epsilon), dropout_of(keys, site, rate, width)
        library.call("norm", shape, x, residual, weight, bias, dropout, total, y, means, scales, dtype=x.dtype)
        ctx.save_for_backward(total, weight, means, scales)
        ctx.where = where
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        total, weight, means, scales = ctx.saved_tensors
        library, epsilon, keys, site, rate = ctx.where
        width, drops = total.shape[-1], keys is not None and rate > 0
        shape, dropout = Norm(total.numel() // width, width, epsilon), dropout_of(keys, site, rate, width)
        d_residual = torch.empty_like(total)
        d_x = torch.empty_like(total) if drops else d_residual
        parts = total.new_empty(_BLOCKS, 2, width, dtype=torch.float32)
        tensors = (gradients[0].contiguous(), total, weight, means, scales, dropout, d_x, d_residual, parts)
        library.call("norm_backward", shape, *tensors, dtype=total.dtype)
        d_weight, d_bias = parts.sum(0).to(weight.dtype)
        return d_x, d_residual, d_weight, d_bias, None


def _per_row(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = x.numel() // x.shape[-1]
    return x.new_empty(rows, dtype=torch.float32), x.new_empty(rows, dtype=torch.float32)
