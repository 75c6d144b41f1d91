"""Fuses keyed dropout, residual and LayerNorm with torch.compile into one kernel forward and one backward.

All layers share one compiled function. Bias and GELU stay separate torch operations: the matrix product adds the bias
itself, so nothing is left to fuse GELU with.
"""

import os
import shutil
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from ftsys.kernels.dropout import Windows, check_width, mask_tables, threshold
from ftsys.kernels.gpu_needs import why_not_triton
from ftsys.kernels.library_caches import check_inductor


def why_not_compiled(device: str) -> str | None:
    """Return the reason why torch.compile cannot be used on this machine's `device` ("cpu" or "cuda"), or None."""
    if device == "cpu":
        compiler = os.environ.get("CXX", "g++")
        return None if shutil.which(compiler) else f"there is no C++ compiler (CXX={compiler!r})"
    return why_not_triton()


def add_norm(x: Tensor, residual: Tensor, norm: torch.nn.LayerNorm, starts: Windows | None, rate: float) -> Tensor:
    """Return norm(residual + dropout(x)), for tensors of one shape (..., D) and any floating dtype.

    `starts` (...) are the dropout windows of each row; None means no dropout. The masks are those of
    `ftsys.kernels.dropout.windowed_dropout`. The function is compiled once per rate, dtype and width, for all numbers
    of rows from 2 on.
    """
    width = x.shape[-1]
    rows, others = x.reshape(-1, width), residual.reshape(-1, width)
    if starts is None:
        drawn: tuple[Tensor, ...] = ()
    else:
        check_width(width)
        drawn = (starts[0].flatten(), starts[1].flatten(), *mask_tables(x.device))
    for tensor in (rows, others, *drawn[:2]):
        if len(rows) > 1:  # torch.compile treats a size of 1 as a constant
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
    variant = (x.dtype, residual.dtype, norm.weight.dtype, width, torch.is_grad_enabled())
    function = _compiled(rate if drawn else 0.0, norm.eps, variant)
    return function(rows, others, norm.weight, norm.bias, *drawn).view(x.shape)


@cache
def _compiled(rate: float, epsilon: float, variant: tuple[object, ...]) -> Callable[..., Tensor]:
    """Return a compiled function for one `variant` of its inputs, and for all numbers of rows.

    torch.compile counts how often it compiled one code object, and with `fullgraph` fails above a limit of eight. So
    each variant is compiled from a code object of its own.
    """
    check_inductor()
    lowest, factor = threshold(rate)

    def dropped_add_norm(
        x: Tensor,
        residual: Tensor,
        weight: Tensor,
        bias: Tensor,
        first_window: Tensor | None = None,
        second_window: Tensor | None = None,
        first: Tensor | None = None,
        second: Tensor | None = None,
    ) -> Tensor:
        if first_window is not None and second_window is not None and first is not None and second is not None:
            columns = torch.arange(x.shape[-1], device=x.device)
            drawn = first[first_window[:, None] + columns] + second[second_window[:, None] + columns]
            x = torch.where(drawn >= lowest, x * factor, 0.0)
        return torch.nn.functional.layer_norm(residual + x, x.shape[-1:], weight, bias, epsilon)

    dropped_add_norm.__code__ = dropped_add_norm.__code__.replace()
    return torch.compile(dropped_add_norm, fullgraph=True)
