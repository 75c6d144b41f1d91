"""Computes AdamW steps on float32 master weights, and sums of squares for gradient norms, in one pass each."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from ftsys.kernels.native.layers import takes
from ftsys.kernels.native.library import Library
from ftsys.kernels.native.structures import AdamW

_PART = 4096
"""Numbers per partial sum of squares; the same constant is `CHUNK` in `optimizer.cpp`."""


def takes_weight(master: Tensor, parameter: Tensor, gradient: Tensor) -> bool:
    """Return True if the kernel supports this weight: contiguous, and its gradient has the weight's dtype."""
    return takes(parameter, gradient) and all(tensor.is_contiguous() for tensor in (master, parameter, gradient))


def adamw(
    library: Library,
    master: Tensor,
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    group: dict[str, Any],
    gradient_scale: float,
    awake: Tensor | None,
) -> None:
    """Do one AdamW step on float32 `master` and its `state` in place, and round the result into `parameter`.

    `state` has "step", "exp_avg" and "exp_avg_sq" (float32), `group` has "lr", "betas", "eps" and "weight_decay", all
    as in torch.optim.AdamW. The gradient is multiplied by `gradient_scale`. `awake` is bool (rows,): only rows marked
    in it are updated, and a row with a gradient other than 0 is marked first. None updates all rows.
    """
    beta1, beta2 = group["betas"]
    step = float(state["step"])
    numbers = AdamW(
        float(group["lr"]),
        beta2,
        group["eps"],
        group["weight_decay"],
        1 - beta1,
        1 - beta2,
        1 - beta1**step,
        (1 - beta2**step) ** 0.5,
        gradient_scale,
    )
    tensors = (master, state["exp_avg"], state["exp_avg_sq"], gradient, parameter)
    if awake is None:
        library.call("adamw", numbers, master.numel(), *tensors, dtype=parameter.dtype)
    else:
        library.call("adamw_rows", numbers, *master.shape, awake, *tensors, dtype=parameter.dtype)


def sum_of_squares(library: Library, values: Tensor) -> float:
    """Return the sum of squares of `values`, float32 or bfloat16.

    Partial sums are float32 and added in double precision, so the result does not depend on the number of threads.
    """
    values = values.contiguous()
    parts = torch.empty(-(-values.numel() // _PART), dtype=torch.float32)
    found = library.call("sum_of_squares", values, values.numel(), parts, dtype=values.dtype, returns=ctypes.c_double)
    return float(found)
