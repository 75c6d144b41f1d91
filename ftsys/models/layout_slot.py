"""Passes a packed batch's layout to the modules of an unmodified model, and one row per sequence to its head.

A `LayoutSlot` belongs to one model. It holds the layout only while the model's `forward` runs, for modules whose
arguments cannot carry it. With activation checkpointing, a layer that is recomputed in the backward pass must not read
`layout`, which is None by then: what a layer needs is in its arguments.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from ftsys.kernels.layout import PackedLayout, pad_rows

Pooling = Callable[[torch.Tensor, PackedLayout], torch.Tensor]


class LayoutSlot:
    """Holds the layout of one model's current batch. Its hooks are bound methods, so a deep copy has its own slot."""

    def __init__(self, model: PreTrainedModel, pooled: nn.Module, pooling: Pooling) -> None:
        """Register the hooks on `model`.

        The head gets the last hidden state of the module `pooled`, (1, T, D), as (S, 1, D): `pooling` maps (T, D) to
        (S, D).
        """
        self.layout: PackedLayout | None = None
        self.recent_layout: PackedLayout | None = None
        """The same as `layout`, but kept until the next forward pass, for recomputation in the backward pass."""
        self.base_inputs: dict[str, Any] | None = None
        self._twin: tuple[torch.Tensor, torch.Tensor] | None = None
        self.pooling = pooling
        self._own_attention: list[tuple[PretrainedConfig, str | None]] = []
        self._packed_attention = ""
        model.register_forward_pre_hook(self._enter, with_kwargs=True)
        # Also after an exception: a padded batch that follows must not use this batch's layout.
        model.register_forward_hook(self._leave, always_call=True)
        model.base_model.register_forward_pre_hook(self._enter_base, with_kwargs=True)
        pooled.register_forward_hook(self._pool)

    def _enter(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.layout = self.recent_layout = kwargs.get("packed")
        self.base_inputs = kwargs.get("base_inputs")
        return args, {name: value for name, value in kwargs.items() if name != "base_inputs"}

    def _leave(self, model: nn.Module, args: Any, output: Any) -> None:
        self.layout = self.base_inputs = self._twin = None

    def remember(self, hidden: torch.Tensor, twin: torch.Tensor) -> torch.Tensor:
        """Keep a norm's second result, for the layer that adds `hidden` as a residual; returns `hidden`."""
        self._twin = (hidden, twin) if self.layout is not None else None
        return hidden

    def residual_of(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the twin of `hidden` if it is the newest result of a norm, else `hidden`.

        With a tensor for the residual and another one for matrix products, autograd adds no gradients: the norm does.
        """
        return self._twin[1] if self._twin is not None and self._twin[0] is hidden else hidden

    def _enter_base(self, base: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Choose the attention, and pass the packed batch on if the model was called with one token per sequence.

        The configuration keeps the choice after a packed batch, because layers may be recomputed in the backward pass.
        """
        for config, own in self._own_attention:
            config._attn_implementation = own if self.layout is None else self._packed_attention
        return None if self.base_inputs is None else ((), kwargs | self.base_inputs)

    def switch_attention(self, model: PreTrainedModel, packed: str) -> None:
        """Have packed batches use the attention registered as `packed`, all others the one that the model has now."""
        self._packed_attention = packed
        configs = {
            id(module.config): module.config for module in model.modules() if isinstance(module, PreTrainedModel)
        }
        self._own_attention = [(config, config._attn_implementation) for config in configs.values()]

    def use_own_attention(self) -> None:
        """Give the model back its own attention."""
        for config, own in self._own_attention:
            config._attn_implementation = own

    def _pool(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self.layout is not None:
            output.last_hidden_state = self.pooling(output.last_hidden_state.squeeze(0), self.layout)[:, None]
        return output


def first_tokens(hidden_TD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Return each sequence's first token, (S, D).

    `hidden_TD` may already be (S, D), if the last layer computed first tokens only.
    """
    spared = len(hidden_TD) == layout.sequences
    return hidden_TD if spared else hidden_TD.index_select(0, layout.first_tokens_S)


def last_tokens(hidden_TD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Return each sequence's last token, (S, D)."""
    return hidden_TD.index_select(0, layout.last_tokens_S)


def mean_of_tokens(hidden_TD: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Return the mean over each sequence's tokens, (S, D).

    It sums padded rows, because an index_add on a GPU has no fixed order of summation.
    """
    return pad_rows(hidden_TD, layout).sum(1) / layout.lengths_S[:, None]
