"""Scales NEFTune's noise by the length of each sequence where batches are packed.

NEFTune (Jain et al., "Noisy Embeddings Improve Instruction Finetuning", 2023) adds uniform noise of at most
alpha / sqrt(L * D) to the embeddings of a sequence of L tokens and D features. transformers' hook takes the length of
the batch for L. That is the padded length of a padded batch, and the sum of all lengths of a packed one.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers import Trainer
from transformers.integrations import deactivate_neftune, neftune_post_forward_hook

from ftsys.kernels.dropout import LEVELS, uniform_rows
from ftsys.kernels.layout import PackedLayout
from ftsys.models.dropout import site_of
from ftsys.models.layout_slot import LayoutSlot
from ftsys.train.trainer.packing import Packing


@dataclass
class SequenceNoise:
    """A forward hook of an embedding: adds noise of at most `alpha` / sqrt(L * D), L being each sequence's own length.

    The noise is keyed by (seed, step, example, position), as dropout is, so it is the same however a step is cut.
    """

    alpha: float
    slot: LayoutSlot

    def __call__(self, table: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Return `output` (1, T, D) with noise while `table` trains; a padded batch gets transformers' own noise."""
        layout = self.slot.layout
        if layout is None:
            noisy: torch.Tensor = neftune_post_forward_hook(table, args, output)
            return noisy
        if not table.training:
            return output
        return output + self._noise(table, layout, *output.shape[1:])[None].to(output.dtype)

    def _noise(self, table: nn.Module, layout: PackedLayout, tokens: int, width: int) -> torch.Tensor:
        """Return the noise of a packed batch, float32 (T, D) for T = `tokens` and D = `width`."""
        lengths_S = layout.lengths_S
        lengths_T = lengths_S.repeat_interleave(lengths_S, output_size=tokens)
        if layout.dropout_keys_T is None:
            unit_TD = torch.rand(tokens, width, device=lengths_S.device) * 2 - 1
        else:
            rows_TD = uniform_rows(layout.dropout_keys_T, site_of(table, layout), width)
            unit_TD = (rows_TD.float() + 0.5) / (LEVELS / 2)
        return unit_TD * (self.alpha / (lengths_T.float() * width).sqrt())[:, None]


@contextlib.contextmanager
def noise_by_sequence(trainer: Trainer, packing: Packing) -> Iterator[None]:
    """Replace transformers' hook by `SequenceNoise` while packed batches are trained on, where NEFTune is on."""
    alpha, view = trainer.neftune_noise_alpha, packing.view
    if alpha is None or view is None:
        yield
        return
    trainer.neftune_hook_handle.remove()
    table = trainer.model.get_input_embeddings()
    handle = table.register_forward_hook(SequenceNoise(alpha, view.slot))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def without_noise_afterwards(trainer: Trainer) -> Iterator[None]:
    """Take NEFTune's hook off the model also where training raises: transformers itself leaves it there."""
    try:
        yield
    finally:
        if trainer.neftune_noise_alpha is not None and hasattr(trainer, "neftune_hook_handle"):
            deactivate_neftune(trainer.model, trainer.neftune_hook_handle, trainer.accelerator)
