"""Wraps torch's private operators for oneDNN, and tells what layers they can compute.

They are those that torch's own compiler emits for linear layers on a CPU.

Shape suffixes: I inputs and O outputs of a layer.
"""

import torch
from torch import nn

from ftsys.models.instances.subclass import class_before
from ftsys.models.joint_linear import JointLinear

LEAST_ROWS, LEAST_WEIGHTS = 512, 1 << 16
"""Smaller products are left to torch: they would gain less than it takes to make a kernel for a new number of rows."""
USUAL_ROWS = 4096
"""Rows of a batch, for which oneDNN chooses the order of the weights."""

OPERATORS = ("_is_mkldnn_bf16_supported", "_linear_pointwise", "_reorder_linear_weight")
"""Private operators of torch: without one of them, no layer is changed."""


def linear(x: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None, then: str = "none") -> torch.Tensor:
    """Return `then` of the product (..., O) of `x` (..., I): "none", or "gelu" by the error function."""
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, then, [], "none")
    return result


def in_own_order(weight_OI: torch.Tensor) -> torch.Tensor:
    """Return a copy of the weight in the order of oneDNN's kernels, which only `linear` can read."""
    ordered: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach(), USUAL_ROWS)
    return ordered


def usable_kinds() -> set[tuple[str, torch.dtype]]:
    """Return the devices and dtypes of weights that oneDNN multiplies on this machine."""
    operators = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and all(hasattr(operators, name) for name in OPERATORS)):
        return set()
    bf16 = {("cpu", torch.bfloat16)} if operators._is_mkldnn_bf16_supported() else set()
    return {("cpu", torch.float32)} | bf16


def has_avx512() -> bool:
    """Return True if torch's own kernels use AVX-512 here."""
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX512")


def kind_of(module: nn.Module) -> tuple[str, torch.dtype] | None:
    """Return the device and dtype of the weight of a large linear layer; None for every other module.

    A subclass may compute something else. Weights of other classes, such as quantized ones, do not hold plain numbers.
    """
    if class_before(module) not in (nn.Linear, JointLinear):
        return None
    weight = module.weight
    gathered_later = hasattr(weight, "ds_id")  # by DeepSpeed
    plain = type(weight) in (nn.Parameter, torch.Tensor) and not gathered_later
    return (weight.device.type, weight.dtype) if plain and weight.numel() > LEAST_WEIGHTS else None


def has_many_rows(x: torch.Tensor) -> bool:
    """Return True if `x` (..., I) has enough rows for a kernel of its own."""
    return x.numel() >= LEAST_ROWS * x.shape[-1]
