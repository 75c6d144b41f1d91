"""Asks a model that is fed padded batches on which side it has to be padded, and refuses one that no side suits.

Padding must not change a row's logits. Heads read the first, the last or all positions, position tables count from the
left, and some layers mix neighbouring positions without regard to the mask. So the model is asked itself: rows of the
data alone, then the same rows beside longer ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from ftsys.data.batching.collate import pad
from ftsys.data.batching.loader import Split
from ftsys.errors import ConfigError
from ftsys.model_files.unpaddable import OTHER_WAYS
from ftsys.models.inputs import model_inputs

SIDES = ("right", "left")
_FAILURES = (ValueError, TypeError, RuntimeError, LookupError, AttributeError)
"""Errors of a forward pass that wants other inputs, such as an image, or whose configuration does not fit."""
EXACT = 1e-3
"""A difference of logits, relative to the largest of them, up to which float32 rounding explains it."""


def padding_side(model: nn.Module, split: Split) -> str:
    """Return "right", or "left" where only padding on the left leaves the logits of rows of `split` as they are.

    Raises:
        ConfigError: the logits depend on the padding on either side, or the model cannot compute these batches at all.
    """
    ids = _rows_to_try(split.lengths)
    if len(ids) < 2:
        return "right"  # all rows have one length, so there is nothing to pad
    with _evaluating(model), torch.no_grad():
        try:
            return _side(model, split, ids)
        except torch.OutOfMemoryError:
            raise
        except _FAILURES as error:
            raise ConfigError(
                f"model type {_type_of(model)!r} cannot compute rows of token ids with a mask "
                f"({type(error).__name__}: {str(error).strip()[:200]}). {OTHER_WAYS}."
            ) from error


def _side(model: nn.Module, split: Split, ids: list[int]) -> str:
    alone_SC = torch.cat([_logits(model, split, [row], "right") for row in ids[:-1]]).float()
    changes: dict[str, float] = {}
    for side in SIDES:
        beside_SC = _logits(model, split, ids, side)[:-1].float()
        changes[side] = float((beside_SC - alone_SC).abs().max() / alone_SC.abs().max().clamp_min(1e-6))
        if changes[side] <= EXACT:
            return side
    best = min(SIDES, key=changes.__getitem__)
    if changes[best] <= max(EXACT, 16 * torch.finfo(_dtype(model)).eps):
        return best
    raise ConfigError(
        f"model type {_type_of(model)!r} cannot be padded: beside longer rows, a row's logits change by "
        f"{changes['right']:.1%} with padding on the right, by {changes['left']:.1%} on the left. {OTHER_WAYS}."
    )


def _rows_to_try(lengths: np.ndarray) -> list[int]:
    """Return rows of up to four different lengths: the shortest, some between, and the longest at the end."""
    different, first = np.unique(lengths, return_index=True)
    chosen = sorted({0, len(different) // 2, max(0, len(different) - 2), len(different) - 1})
    return [int(first[index]) for index in chosen]


def _logits(model: nn.Module, split: Split, ids: list[int], side: str) -> torch.Tensor:
    """Return the logits (S, C) of one padded batch of these rows."""
    facts = split.tokenizer
    batch = pad(split.gather(np.asarray(ids)), facts.emits_token_types, facts.pad_id, side)
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in model_inputs(batch, None).items()}
    logits: torch.Tensor = model(**inputs).logits
    return logits


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and leave each module in the mode in which it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _dtype(model: nn.Module) -> torch.dtype:
    return next(weight.dtype for weight in model.parameters() if weight.is_floating_point())


def _type_of(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
