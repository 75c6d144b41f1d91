"""Computes the RMSNorms of unmodified decoders by one kernel in Triton; transformers takes eight operations."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ftsys.kernels.triton_layers.choice import in_triton
from ftsys.models.layout_slot import LayoutSlot
from ftsys.models.subclass import Replacement, become


class FusedRMSNorm(Replacement):
    """Computes x / sqrt(mean(x ** 2) + epsilon) * weight in Triton's batches, and as inherited in others."""

    layout_slot: LayoutSlot
    weight: nn.Parameter

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return (..., D) of (..., D)."""
        layout = self.layout_slot.recent_layout
        if layout is None or not in_triton(layout.kernel, hidden_states, self.weight):
            inherited: Tensor = super().forward(hidden_states)
            return inherited
        from ftsys.kernels.triton_layers.norm import NormOf, add_norm

        # Gemma stores its weights as their distance from 1.
        added = 1.0 if type(self).__name__.startswith("Gemma") else 0.0
        dtype = torch.promote_types(hidden_states.dtype, self.weight.dtype)
        how = NormOf(_epsilon(self), centered=False, added=added, dtype=dtype)
        return add_norm(hidden_states, self.weight, how)[0]


def install_rms_norms(model: nn.Module, layout_slot: LayoutSlot) -> None:
    """Fuse the modules of `model` that are RMSNorms like Llama's."""
    for module in model.modules():
        if _is_rms_norm(module):
            become(module, FusedRMSNorm)
            module.layout_slot = layout_slot


def _is_rms_norm(module: nn.Module) -> bool:
    named = type(module).__name__.endswith("RMSNorm") and type(module) is not nn.RMSNorm
    plain = list(dict(module.named_parameters())) == ["weight"] and not list(module.children())
    return named and plain and _epsilon(module) is not None and len(inspect.signature(module.forward).parameters) == 1


def _epsilon(module: Any) -> Any:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))
