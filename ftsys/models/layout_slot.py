"""How a packed batch's layout reaches the inside of an unmodified model, and how its head gets one row a sequence.

A `LayoutSlot` belongs to one model. It holds the layout only while the model's `forward` runs, for those modules whose
own arguments have no room for it. Nothing that a checkpointed layer computes again in the backward pass reads it: the
slot is empty by then. What layers need travels through their arguments.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ftsys.kernels.layout import PackedLayout, pad_rows

Pooling = Callable[[torch.Tensor, PackedLayout], torch.Tensor]


class LayoutSlot:
    """The hooks of one model. They are its bound methods, so that a deep copy of the model has a slot of its own."""

    def __init__(self, model: PreTrainedModel, pooled: nn.Module, pooling: Pooling) -> None:
        """Hook into `model`; `pooled` is the module whose last hidden state (1, T, D) the head is to see as (S, 1, D).

        `pooling` makes (S, D) of (T, D).
        """
        self.layout: PackedLayout | None = None
        self.recent_layout: PackedLayout | None = None
        """As `layout`, but kept until the next forward pass, for what is computed again in the backward pass."""
        self.base_inputs: dict[str, Any] | None = None
        self.pooling = pooling
        model.register_forward_pre_hook(self._enter, with_kwargs=True)
        # After an exception too: a padded batch that follows must not find this batch's layout.
        model.register_forward_hook(self._leave, always_call=True)
        model.base_model.register_forward_pre_hook(self._enter_base, with_kwargs=True)
        pooled.register_forward_hook(self._pool)

    def _enter(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.layout = self.recent_layout = kwargs.get("packed")
        self.base_inputs = kwargs.get("base_inputs")
        return args, {name: value for name, value in kwargs.items() if name != "base_inputs"}

    def _leave(self, model: nn.Module, args: Any, output: Any) -> None:
        self.layout = self.base_inputs = None

    def _enter_base(self, base: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Where the head is shown one token a sequence, the model below it gets the packed batch instead."""
        return None if self.base_inputs is None else ((), kwargs | self.base_inputs)

    def _pool(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self.layout is not None:
            output.last_hidden_state = self.pooling(output.last_hidden_state.squeeze(0), self.layout)[:, None]
        return output


def first_tokens(hidden_TD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Each sequence's first token, (S, D); of (S, D), where the last layer computed no other, these."""
    spared = len(hidden_TD) == layout.sequences
    return hidden_TD if spared else hidden_TD.index_select(0, layout.first_tokens_S)


def last_tokens(hidden_TD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Each sequence's last token, (S, D), whatever token that is."""
    return hidden_TD.index_select(0, layout.last_tokens_S)


def mean_of_tokens(hidden_TD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """The mean over each sequence's tokens, (S, D). By padding: a sum by index would be in no fixed order on a GPU."""
    return pad_rows(hidden_TD, layout).sum(1) / layout.lengths_S[:, None]
