"""What the last layer need not compute: behind its attention, a head that reads first tokens needs their rows alone."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ftsys.kernels.layout import PackedLayout
from ftsys.models.fused import FusedAddNorm


class RowsOfHead:
    """Two hooks of one last layer, bound methods as a `LayoutSlot`'s are, so that a deep copy has its own.

    The layout comes from the attention's arguments, which are right in the layer's recomputation too.
    """

    def __init__(self) -> None:
        self.layout: PackedLayout | None = None

    def note(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Before the attention: `packed`, or what DeBERTa's layers carry as `relative_pos`; None for a padded batch."""
        carriers = kwargs.get("packed"), getattr(kwargs.get("relative_pos"), "layout", None)
        self.layout = next((layout for layout in carriers if isinstance(layout, PackedLayout)), None)

    def select(self, behind: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """Behind the attention: of its result and of the residual, (1, T, D) each, the first tokens' rows (1, S, D)."""
        if self.layout is None:
            return None
        first_S = self.layout.first_tokens_S
        return tuple(rows.index_select(1, first_S) for rows in args)


def spare_last_layer(model: PreTrainedModel) -> None:
    """Let the last layer of an encoder whose head reads first tokens compute, behind its attention, nothing else.

    Done where the layer is BERT's in its parts, and all that stands behind its attention is done row by row, once.
    Which families that are, `launcher.model_shape` knows for the planner.
    """
    encoder = getattr(model.base_model, "encoder", None)
    layers = getattr(encoder, "layer", None)
    if not isinstance(layers, nn.ModuleList) or getattr(model.base_model, "z_steps", 0) > 1:
        return
    convolves = len(layers) == 1 and getattr(encoder, "conv", None) is not None
    in_chunks = getattr(layers[-1], "chunk_size_feed_forward", 0) > 0
    blocks = dict(layers[-1].named_modules())
    known = all(isinstance(blocks.get(name), FusedAddNorm) for name in ("attention.output", "output"))
    if known and not (convolves or in_chunks):
        rows = RowsOfHead()
        blocks["attention"].register_forward_pre_hook(rows.note, with_kwargs=True)
        blocks["attention.output"].register_forward_pre_hook(rows.select)
