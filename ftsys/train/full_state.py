"""The whole state of a model and its optimizer, free of world size and engine: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass
class FullState:
    """A model and its optimizer on the CPU, keyed by the plain model's parameter names; empty on ranks above 0."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    """Master weights by parameter, each of the parameter's shape; fp32, or fp64 where the model is."""
    buffers: dict[str, Tensor] = field(default_factory=dict)
    """Buffers of the state dict, in their own types."""
    moments: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """By moment ("exp_avg"), then parameter: of its shape, fp32 or fp64. Empty before the first step."""
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    """By parameter: what the optimizer counts, as {"step": 3.0}."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    """Each parameter group's numbers (lr, betas, ...) and the names of its "parameters"."""
    counters: dict[str, Any] = field(default_factory=dict)
    """The engine's own: its step counters and the fp16 loss scale."""


class Room:
    """Memory of a former state for the next one to be written into: to get it anew takes longer than to fill it."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, str], Tensor] = {}

    def take(self, kind: str, name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """A CPU tensor with whatever is in it; the same one for the same `kind` and `name` while it fits."""
        import torch

        kept = self._tensors.get((kind, name))
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            kept = self._tensors[kind, name] = torch.empty(shape, dtype=dtype)
        return kept

    def clear(self) -> None:
        """Give it all back."""
        self._tensors.clear()
