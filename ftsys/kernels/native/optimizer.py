"""AdamW on masters, and gradients' norms, in one pass over memory each."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from ftsys.kernels.native.layers import takes
from ftsys.kernels.native.library import Library
from ftsys.kernels.native.structures import AdamW

_PART = 4096
"""Numbers whose squares are summed together; as in `optimizer.cpp`."""


def takes_weight(master: Tensor, parameter: Tensor, gradient: Tensor) -> bool:
    """Whether the kernel is made for this weight: whole in memory, its gradient of its own dtype."""
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
    """One step of float32 `master` and its `state`, rounded into `parameter`.

    `awake` (rows,), bool: rows of a matrix that are updated; those that have a gradient now are marked first.
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
    """In parts of float32 sums, added in double precision: the same for any number of threads."""
    values = values.contiguous()
    parts = torch.empty(-(-values.numel() // _PART), dtype=torch.float32)
    found = library.call("sum_of_squares", values, values.numel(), parts, dtype=values.dtype, returns=ctypes.c_double)
    return float(found)
