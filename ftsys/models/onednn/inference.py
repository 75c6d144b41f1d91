"""Lays out the weights of linear layers once for oneDNN, in a model that only infers.

`nn.functional.linear` gets weights as they are stored, and brings them into the order of its kernel in every call. The
operators used here have no gradient. On CPUs with AVX-512 the GELU after a product is computed on the product's tiles,
while they are in a core's cache.

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
from ftsys.models.joint_linear import is_watched
from ftsys.models.onednn.operators import has_avx512, has_many_rows, in_own_order, kind_of, linear, usable_kinds


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
        if torch.is_grad_enabled() or not has_many_rows(x):
            return False
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        return dtype == self.weight.dtype

    def then(self, activation: str, x: torch.Tensor) -> torch.Tensor:
        """Return `activation` of the layer's result (..., O): "none", or "gelu" by the error function."""
        if self.prepacked_OI is None:
            self.prepacked_OI = in_own_order(self.weight)
        return linear(x.to(self.weight.dtype), self.prepacked_OI, self.bias, activation)

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
    kinds = usable_kinds()
    for module in model.modules():
        if kind_of(module) in kinds and not isinstance(module, PrepackedLinear):
            become(module, PrepackedLinear)
            module.prepacked_OI = None
    if has_avx512():  # with AVX2, oneDNN's GELU takes longer than torch's
        for module in model.modules():
            if _is_gelu_of_linear(module):
                become(module, LinearWithGELU)


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
