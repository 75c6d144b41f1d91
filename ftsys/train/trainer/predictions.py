"""Evaluation on any number of ranks: packs computed where they were dealt, predictions gathered by example id.

Every example counts once, whatever the ranks, and comes back in the data set's own order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import distributed

from ftsys.data.batching.collate import NO_EXAMPLE, Batch, to_device
from ftsys.data.batching.loader import EvaluationLoader
from ftsys.train.checkpoint.transfer import widened
from ftsys.train.trainer.loss import loss_per_example


class EvaluationStopped(Exception):
    """A rank was told to stop: all ranks left the evaluation, and what was computed of it is dropped."""


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
    """Run `forward` (batch -> logits (S, C)) over this rank's packs; the whole result on every rank.

    `progress` is told the examples done so far over all ranks, estimated from this rank's share. `label_smoothing` is
    that of `loss_per_example`.

    Raises:
        EvaluationStopped: on every rank, after `stop_wanted` was true between two packs of any.
        RuntimeError: an example is missing or was computed twice, which would make every metric wrong.
    """
    ids, logits, losses, done = [], [], [], 0
    with torch.no_grad():
        for batch in loader:
            batch = to_device(batch, device)
            logits_SC = forward(batch)
            labels_S = batch.labels_S
            known_S = ~torch.isnan(labels_S) if labels_S.is_floating_point() else labels_S >= 0
            known_labels_S = labels_S.masked_fill(~known_S, 0)
            losses_S = loss_per_example(logits_SC, known_labels_S, batch.example_ids_S, label_smoothing)
            ids.append(batch.example_ids_S)
            logits.append(widened(logits_SC))
            losses.append(torch.where(known_S, losses_S, torch.nan).float())
            done += len(batch.example_ids_S)
            progress(min(done * loader.ranks, len(loader.dataset)))
            if stop_wanted():
                break
    if _any_rank(len(ids) < len(loader), device, loader.ranks):
        raise EvaluationStopped
    values_MV = torch.cat([torch.cat(losses)[:, None], torch.cat(logits)], dim=1)
    return _in_order(*_gather(torch.cat(ids), values_MV, loader.ranks), len(loader.dataset))


def _any_rank(own: bool, device: torch.device, ranks: int) -> bool:
    """Whether `own` is true on any rank. Collective."""
    if ranks == 1:
        return own
    word = torch.tensor([own], dtype=torch.int32, device=device)
    distributed.all_reduce(word, op=distributed.ReduceOp.MAX)
    return bool(word.item())


def _gather(ids_M: torch.Tensor, values_MV: torch.Tensor, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and values of all ranks. Ranks may hold different numbers of rows."""
    if ranks == 1:
        return ids_M.cpu().numpy(), values_MV.cpu().numpy()
    count = torch.tensor([len(ids_M)], device=ids_M.device)
    counts = [torch.zeros_like(count) for _ in range(ranks)]
    distributed.all_gather(counts, count)
    most = int(torch.stack(counts).max())
    padded_ids = ids_M.new_full((most,), NO_EXAMPLE)
    padded_ids[: len(ids_M)] = ids_M
    padded_values = values_MV.new_zeros(most, values_MV.shape[1])
    padded_values[: len(values_MV)] = values_MV
    all_ids = [torch.empty_like(padded_ids) for _ in range(ranks)]
    all_values = [torch.empty_like(padded_values) for _ in range(ranks)]
    distributed.all_gather(all_ids, padded_ids)
    distributed.all_gather(all_values, padded_values)
    return torch.cat(all_ids).cpu().numpy(), torch.cat(all_values).cpu().numpy()


def _in_order(ids: np.ndarray, values: np.ndarray, rows: int) -> Predictions:
    real = ids != NO_EXAMPLE
    ids, values = ids[real], values[real]
    seen = np.bincount(ids, minlength=rows)
    if len(seen) != rows or (seen != 1).any():
        wrong = np.flatnonzero(seen != 1)[:5].tolist()
        raise RuntimeError(f"evaluation of {rows} examples saw ids {wrong} {seen[wrong].tolist()} times, not once")
    ordered = np.empty_like(values)
    ordered[ids] = values
    return Predictions(logits=ordered[:, 1:], losses=ordered[:, 0])
