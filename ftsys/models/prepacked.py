"""Lays out the weights of linear layers once for oneDNN, torch's library of CPU kernels, in a model that only infers.

`nn.functional.linear` gets weights as they are stored, and brings them into the order of its kernel in every call. The
operators used here are those that torch's own compiler emits for frozen weights; they have no gradient. On CPUs with
AVX-512 the GELU after a product is computed on the product's tiles, while they are in a core's cache.

Shape suffixes: I inputs and O outputs of a layer.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.activations import GELUActivation

from ftsys.models.instances.changes import recorded
from ftsys.models.instances.subclass import Replacement, become
from ftsys.models.joint_linear import JointLinear, is_watched

USUAL_ROWS = 4096
"""Rows of a batch, for which oneDNN chooses the order of the weights."""
LEAST_ROWS, LEAST_WEIGHTS = 512, 1 << 16
"""Smaller products are left to torch: they would gain less than it takes to make a kernel for a new number of rows."""

OPERATORS = ("_is_mkldnn_bf16_supported", "_linear_pointwise", "_reorder_linear_weight")
"""Private operators of torch: without one of them, nothing is changed."""


class PrepackedLinear(Replacement):
    """Computes a linear layer from weights in oneDNN's order, which the first call makes."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    prepacked_OI: torch.Tensor | None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., O) of (..., I)."""
        return self.then("none", x) if self.takes(x) else super().forward(x)

    def takes(self, x: torch.Tensor) -> bool:
        """Return True for many rows without gradients that are computed in the dtype of the weights."""
        if torch.is_grad_enabled() or x.numel() < LEAST_ROWS * x.shape[-1]:
            return False
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        return dtype == self.weight.dtype

    def then(self, activation: str, x: torch.Tensor) -> torch.Tensor:
        """Return `activation` of the layer's result (..., O): "none", or "gelu" by the error function."""
        if self.prepacked_OI is None:
            self.prepacked_OI = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), USUAL_ROWS)
        operator, x = torch.ops.mkldnn._linear_pointwise, x.to(self.weight.dtype)
        result: torch.Tensor = operator(x, self.prepacked_OI, self.bias, activation, [], "none")
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the reordered weights out of pickles and copies, which make them anew."""
        make, classes, state = super().__reduce__()
        return make, classes, state | {"prepacked_OI": None}


class LinearWithGELU(Replacement):
    """Computes gelu(dense(x)) in one operation."""

    dense: PrepackedLinear

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return (..., O) of (..., I)."""
        takes = self.dense.takes(hidden_states)
        return self.dense.then("gelu", hidden_states) if takes else super().forward(hidden_states)


@contextmanager
def prepacked(model: nn.Module) -> Iterator[None]:
    """Prepack `model` within the context; its weights must not change there."""
    with recorded(model) as changes:
        prepack(model)
    try:
        yield
    finally:
        changes.leave()


def prepack(model: nn.Module) -> None:
    """Let the linear layers of `model` on a CPU use weights in oneDNN's order, where torch has such operators.

    The weights must not change afterwards, and no gradients are computed. The model needs memory for a second copy of
    the weights. Results in float32 differ by rounding from those of `nn.functional.linear`, which uses another library.
    """
    kinds = _kinds()
    for module in model.modules():
        if type(module) in (nn.Linear, JointLinear) and _kind(module.weight) in kinds:
            become(module, PrepackedLinear)
            module.prepacked_OI = None
    if torch.backends.cpu.get_cpu_capability() == "AVX512":  # with AVX2, oneDNN's GELU takes longer than torch's
        for module in model.modules():
            if _is_gelu_of_linear(module):
                become(module, LinearWithGELU)


def _kinds() -> set[tuple[str, torch.dtype]]:
    """Return the devices and dtypes of weights that can be laid out on this machine."""
    operators = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and all(hasattr(operators, name) for name in OPERATORS)):
        return set()
    bf16 = {("cpu", torch.bfloat16)} if operators._is_mkldnn_bf16_supported() else set()
    return {("cpu", torch.float32)} | bf16


def _kind(weight: torch.Tensor) -> tuple[str, torch.dtype] | None:
    """Return the weight's device and dtype; None for small weights and those that hold something else than numbers."""
    gathered_later = hasattr(weight, "ds_id")  # by DeepSpeed
    plain = type(weight) in (nn.Parameter, torch.Tensor) and not gathered_later  # quantized weights have own classes
    return (weight.device.type, weight.dtype) if plain and weight.numel() > LEAST_WEIGHTS else None


def _is_gelu_of_linear(module: nn.Module) -> bool:
    """Tell the first half of a feed-forward like BERT's, whatever the name of its class in transformers.

    Code from elsewhere may do more in a class with the same parts.
    """
    parts = dict(module.named_children())
    if list(parts) != ["dense", "intermediate_act_fn"] or not _is_stock(module):
        return False
    if any(is_watched(part) or "forward" in vars(part) for part in (module, *parts.values())):
        return False
    dense, activation = parts.values()
    taken = list(inspect.signature(module.forward).parameters)
    return isinstance(dense, PrepackedLinear) and type(activation) is GELUActivation and taken == ["hidden_states"]


def _is_stock(module: nn.Module) -> bool:
    return type(module).__module__.startswith("transformers.models.")
