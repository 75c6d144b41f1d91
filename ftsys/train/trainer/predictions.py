"""Predicts a split on any number of ranks: each rank computes its packs, and all ranks gather the results.

Every example counts once, whatever the ranks, and comes back in the data set's own order.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ftsys.data.batching.collate import NO_EXAMPLE, Batch, to_device
from ftsys.data.batching.loader import EvaluationLoader
from ftsys.distributed import all_gather_pieces, any_rank
from ftsys.train.checkpoint.transfer import widened
from ftsys.train.trainer.loss import loss_per_example

ROWS_OF_A_PIECE = 1 << 18
"""Rows of each rank that are gathered at once: bounds the memory beside the result's own."""


class EvaluationStopped(Exception):
    """A rank received a stop signal: all ranks left the evaluation, and its partial results are dropped."""


@dataclass(frozen=True)
class Predictions:
    """`logits` (N, C) and `losses` (N,), NaN without a label, in data set order: float32, or a model's own float64."""

    logits: np.ndarray
    losses: np.ndarray


def predict_all(
    loader: EvaluationLoader,
    forward: Callable[[Batch], torch.Tensor],
    device: torch.device,
    progress: Callable[[int], None],
    stop_wanted: Callable[[], bool] = lambda: False,
    label_smoothing: float = 0.0,
) -> Predictions:
    """Run `forward` (batch -> logits (S, C)) over this rank's packs; returns the whole result on every rank.

    `progress` is called with the examples done so far over all ranks, estimated from this rank's part.
    `label_smoothing` is that of `loss_per_example`. Collective.

    Raises:
        EvaluationStopped: on every rank, after `stop_wanted` was true between two packs of any.
        RuntimeError: an example is missing or was computed twice, which would make every metric wrong.
    """
    ids, values, done = deque[torch.Tensor](), deque[torch.Tensor](), 0
    with torch.no_grad():
        for batch in loader:
            batch = to_device(batch, device)
            ids.append(batch.example_ids_S.clone())  # on a GPU they are a view of the whole pack
            values.append(_losses_and_logits(batch, forward(batch), label_smoothing))
            done += len(batch.example_ids_S)
            progress(min(done * loader.ranks, len(loader.dataset)))
            if stop_wanted():
                break
    if any_rank(len(ids) < len(loader), device):
        raise EvaluationStopped
    return _in_order(_gathered(ids, values), len(loader.dataset))


def _gathered(ids: deque[torch.Tensor], values: deque[torch.Tensor]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the ids and values of all ranks in pieces, and take this rank's out of the queues. Collective."""
    whole = [all_gather_pieces(found, ROWS_OF_A_PIECE) for found in (ids, values)]
    for piece_ids, piece_values in zip(*whole, strict=True):
        yield piece_ids.cpu().numpy(), piece_values.cpu().numpy()


def _losses_and_logits(batch: Batch, logits_SC: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return (S, 1 + C): the loss of each example, NaN without a label, then its logits."""
    labels_S, several = batch.labels_S, batch.labels_S.dim() == 2
    numbers = labels_S.is_floating_point() and not several
    known_S = ~torch.isnan(labels_S) if numbers else (labels_S[:, 0] if several else labels_S) >= 0
    known = labels_S.masked_fill(~(known_S[:, None] if several else known_S), 0)
    losses_S = loss_per_example(logits_SC, known, batch.example_ids_S, label_smoothing)
    losses_S = torch.where(known_S, losses_S, torch.nan).float()
    return torch.cat([losses_S[:, None], widened(logits_SC)], dim=1)


def _in_order(pieces: Iterator[tuple[np.ndarray, np.ndarray]], rows: int) -> Predictions:
    """Put pieces of (ids (P,), values (P, 1 + C)) into the order of the ids."""
    first_ids, first_values = next(pieces)
    ordered_NV, times_N = np.empty((rows, first_values.shape[1]), first_values.dtype), np.zeros(rows, np.uint8)
    for ids, values in itertools.chain([(first_ids, first_values)], pieces):
        if (ids >= rows).any():
            raise RuntimeError(f"evaluation of {rows} examples saw id {ids.max()}")
        real = ids != NO_EXAMPLE
        ordered_NV[ids[real]] = values[real]
        np.add.at(times_N, ids[real], 1)
    if (times_N != 1).any():
        wrong = np.flatnonzero(times_N != 1)[:5]
        raise RuntimeError(
            f"evaluation of {rows} examples saw ids {wrong.tolist()} {times_N[wrong].tolist()} times, not once"
        )
    return Predictions(logits=ordered_NV[:, 1:], losses=ordered_NV[:, 0])
