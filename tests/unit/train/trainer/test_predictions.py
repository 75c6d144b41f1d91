"""Tests predictions of a split: order, losses of every kind of label, progress, and an evaluation that is stopped."""

import dataclasses
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ftsys.data.batching.collate import NO_EXAMPLE, Batch, PackedBatch, PaddedBatch
from ftsys.data.batching.loader import EvaluationLoader
from ftsys.data.store.reader import Store, StoreSplit
from ftsys.train.trainer import predictions
from ftsys.train.trainer.predictions import EvaluationStopped, Predictions, _in_order, _losses_and_logits, predict_all
from tests.distributed.tiny_run import ROWS, make_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoreSplit]:
    return Store.open(make_store(tmp_path_factory.mktemp("stores"))).splits


def forward(batch: Batch) -> torch.Tensor:
    """Return logits (S, 2) that tell the example: its id, and half of it."""
    return torch.stack([batch.example_ids_S.float(), batch.example_ids_S.float() / 2], 1)


def batch_of(labels: torch.Tensor) -> PaddedBatch:
    ids = torch.arange(len(labels))
    return PaddedBatch(ids[:, None], torch.ones_like(ids[:, None]), None, labels, ids)


def predicted(split: StoreSplit, stop: Callable[[], bool] = lambda: False) -> tuple[Predictions, list[int]]:
    done: list[int] = []
    loader = EvaluationLoader(split, 60, 0, 1, packed=False)
    return predict_all(loader, forward, CPU, done.append, stop), done


def test_results_are_in_the_order_of_the_data(splits: dict[str, StoreSplit]) -> None:
    found, done = predicted(splits["validation"])
    expected = np.stack([np.arange(23.0), np.arange(23.0) / 2], 1)
    assert np.array_equal(found.logits, expected)
    labels = torch.tensor(splits["validation"].labels)
    losses = functional.cross_entropy(torch.from_numpy(expected), labels, reduction="none")
    np.testing.assert_allclose(found.losses, losses.numpy(), rtol=1e-6, atol=1e-6)
    assert (found.logits.dtype, found.losses.dtype) == (np.float32, np.float32)
    assert done == sorted(set(done))
    assert done[-1] == ROWS["validation"]


class _Rank0OfThree(EvaluationLoader):
    """Yields all packs, but says that there are two other ranks."""

    def __iter__(self) -> Iterator[Batch]:
        packs = list(super().__iter__())
        self.ranks = 3
        return iter(packs)

    def __len__(self) -> int:
        return len(self.packs)


def test_progress_is_that_of_all_ranks_and_never_more_than_the_rows(splits: dict[str, StoreSplit]) -> None:
    done: list[int] = []
    loader = _Rank0OfThree(splits["validation"], 60, 0, 1, packed=False)
    counts = np.cumsum([len(pack) for pack in loader.packs])
    predict_all(loader, forward, CPU, done.append)
    assert done == [min(3 * int(count), ROWS["validation"]) for count in counts]


def test_the_tokens_of_a_pack_are_not_kept_until_the_end(
    splits: dict[str, StoreSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[torch.Tensor] = []
    gathered = predictions._gathered

    def gathering(ids: deque[torch.Tensor], values: deque[torch.Tensor]) -> Any:
        kept.extend(ids)
        return gathered(ids, values)

    def in_one_piece(batch: PackedBatch, device: torch.device) -> PackedBatch:
        """Return the batch as it arrives on a GPU: its tensors are views of one."""
        together = torch.cat([batch.example_ids_S, batch.input_ids_T])
        return dataclasses.replace(batch, example_ids_S=together[: len(batch.example_ids_S)])

    monkeypatch.setattr(predictions, "_gathered", gathering)
    monkeypatch.setattr(predictions, "to_device", in_one_piece)
    predict_all(EvaluationLoader(splits["validation"], 60, 0, 1, packed=True), forward, CPU, lambda done: None)
    assert len(kept) > 2
    assert all(ids.untyped_storage().nbytes() == ids.nbytes for ids in kept)


def test_a_split_without_labels_has_no_losses(splits: dict[str, StoreSplit]) -> None:
    found, _ = predicted(splits["test"])
    assert np.isnan(found.losses).all()
    assert np.isfinite(found.logits).all()


def test_a_stop_between_packs_drops_the_results(splits: dict[str, StoreSplit]) -> None:
    asked: list[int] = []

    def wanted_at_the_second() -> bool:
        asked.append(len(asked))
        return len(asked) == 2

    with pytest.raises(EvaluationStopped):
        predicted(splits["validation"], wanted_at_the_second)
    assert asked == [0, 1], "no pack is computed after a stop"


def test_a_stop_after_the_last_pack_comes_too_late(splits: dict[str, StoreSplit]) -> None:
    asked: list[int] = []
    packs = len(EvaluationLoader(splits["validation"], 60, 0, 1, packed=False))

    def wanted_at_the_end() -> bool:
        asked.append(len(asked))
        return len(asked) == packs

    found, _ = predicted(splits["validation"], wanted_at_the_end)
    assert len(found.logits) == ROWS["validation"]


LOGITS = torch.tensor([[0.5, -1.0], [2.0, 0.25], [-0.5, 3.0]])


def test_losses_of_class_ids_and_of_a_row_without_one() -> None:
    found = _losses_and_logits(batch_of(torch.tensor([0, -1, 1])), LOGITS, 0.0)
    expected = functional.cross_entropy(LOGITS, torch.tensor([0, 0, 1]), reduction="none")
    assert torch.equal(found[:, 1:], LOGITS)
    assert found[[0, 2], 0].tolist() == pytest.approx(expected[[0, 2]].tolist())
    assert found[:, 0].isnan().tolist() == [False, True, False]


def test_losses_are_smoothed_where_it_is_asked_for() -> None:
    found = _losses_and_logits(batch_of(torch.tensor([0, 1, 1])), LOGITS, 0.25)
    expected = functional.cross_entropy(LOGITS, torch.tensor([0, 1, 1]), reduction="none", label_smoothing=0.25)
    assert found[:, 0].tolist() == pytest.approx(expected.tolist())


def test_losses_of_numbers_below_zero_and_of_a_row_without_one() -> None:
    labels = torch.tensor([-1.5, float("nan"), 0.0], dtype=torch.float64)
    found = _losses_and_logits(batch_of(labels), LOGITS[:, :1], 0.0)
    assert found[:, 0].tolist() == pytest.approx([4.0, float("nan"), 0.25], nan_ok=True)


def test_losses_of_several_labels_and_of_a_row_without_any() -> None:
    labels = torch.tensor([[1.0, 0.0], [-1.0, -1.0], [0.0, 1.0]])
    found = _losses_and_logits(batch_of(labels), LOGITS, 0.0)
    expected = functional.binary_cross_entropy_with_logits(LOGITS, labels, reduction="none").mean(1)
    assert found[[0, 2], 0].tolist() == pytest.approx(expected[[0, 2]].tolist())
    assert found[:, 0].isnan().tolist() == [False, True, False]


def test_logits_of_sixteen_bits_come_back_as_float32() -> None:
    found = _losses_and_logits(batch_of(torch.tensor([0, 1, 1])), LOGITS.to(torch.bfloat16), 0.0)
    assert found.dtype == torch.float32
    assert torch.equal(found[:, 1:], LOGITS.to(torch.bfloat16).float())


Pieces = Iterator[tuple[np.ndarray, np.ndarray]]


def pieces(*ids: list[int]) -> Pieces:
    """Yield pieces whose values are the ids times 1, 10 and 100."""
    for found in ids:
        yield np.array(found, np.int64), np.outer(np.array(found, np.float32), np.array([1, 10, 100], np.float32))


def test_pieces_come_into_the_order_of_their_ids() -> None:
    found = _in_order(pieces([4, 0, NO_EXAMPLE], [], [2, 1, 3]), 5)
    assert found.losses.tolist() == [0, 1, 2, 3, 4]
    assert found.logits.tolist() == [[10 * row, 100 * row] for row in range(5)]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (([0, 1], [3]), r"ids \[2\] \[0\] times"),
        (([0, 1, 2], [2, 3]), r"ids \[2\] \[2\] times"),
        (([0, 1, 2], [3, 4]), r"saw id 4"),
        (([0, 0, 0], []), r"ids \[0, 1, 2, 3\] \[3, 0, 0, 0\] times"),
    ],
)
def test_an_example_that_is_missing_or_counted_twice_is_an_error(ids: tuple[list[int], ...], said: str) -> None:
    with pytest.raises(RuntimeError, match=f"evaluation of 4 examples saw {said.removeprefix('saw ')}"):
        _in_order(pieces(*ids), 4)


def test_memory_is_that_of_the_result_and_of_a_piece() -> None:
    rows, of_a_piece = 1_000_000, 10_000

    def made() -> Pieces:
        for start in range(0, rows, of_a_piece):
            ids = np.arange(start, start + of_a_piece)
            yield ids, np.zeros((of_a_piece, 3), np.float32)

    tracemalloc.start()
    try:
        found = _in_order(made(), rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.logits.shape == (rows, 2)
    assert peak < 1.25 * rows * (3 * 4 + 1)
