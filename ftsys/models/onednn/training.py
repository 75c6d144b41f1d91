"""Trains linear layers in float32 by oneDNN on CPUs with AVX-512, where it multiplies faster than torch's BLAS.

oneDNN computes a layer's result and its input's gradient. The weight's gradient stays with the BLAS, which is faster
there. Weights are read as they are stored, since they change at each step. In bf16 torch itself uses oneDNN.

Shape suffixes: N rows of tokens, I inputs and O outputs of a layer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ftsys.models.instances.subclass import Replacement, become
from ftsys.models.onednn.operators import has_avx512, has_many_rows, kind_of, linear, usable_kinds

_KIND = ("cpu", torch.float32)


class TrainedLinear(Replacement):
    """Computes a linear layer and the gradient of its input by oneDNN."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., O) of (..., I)."""
        if not self._takes(x):
            inherited: Tensor = super().forward(x)
            return inherited
        result: Tensor = _Product.apply(x, self.weight, self.bias)
        return result

    def _takes(self, x: Tensor) -> bool:
        here = (x.device.type, x.dtype) == (self.weight.device.type, self.weight.dtype) == _KIND
        partitioned = hasattr(self.weight, "ds_id")  # DeepSpeed may have done it after `train_by_onednn`
        trains = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad) and not partitioned
        return here and trains and has_many_rows(x) and not torch.is_autocast_enabled("cpu")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return linear(x, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight_OI = ctx.saved_tensors
        x_NI, gradient_NO = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            linear(gradient, weight_OI.t(), None) if of_x else None,
            gradient_NO.t() @ x_NI if of_weight else None,
            gradient_NO.sum(0) if of_bias else None,
        )


def train_by_onednn(model: nn.Module) -> None:
    """Let the large linear layers of `model` be computed by oneDNN while they are trained, if this CPU gains by it.

    Results differ by rounding from those of `nn.functional.linear`.
    """
    if has_avx512() and _KIND in usable_kinds():
        for module in model.modules():
            if kind_of(module) == _KIND:
                become(module, TrainedLinear)
