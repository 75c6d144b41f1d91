"""Tests the items of loaders: weights and figures of a step, its epochs, and the packs of an evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftsys.data.batching.collate import NO_EXAMPLE, PackedBatch, PaddedBatch
from ftsys.data.batching.loader import (
    LOCAL_BATCH,
    BatchMaker,
    BatchSettings,
    EvaluationLoader,
    LocalBatch,
    StepLoader,
    is_split,
)
from ftsys.data.batching.plan import EpochPlan, plan_evaluation, plan_local_batch
from ftsys.data.store.reader import Store, StoreSplit
from tests.distributed.tiny_run import ROWS, make_store


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> StoreSplit:
    return Store.open(make_store(tmp_path_factory.mktemp("stores"))).splits["train"]


def settings_of(**changed: Any) -> BatchSettings:
    values: dict[str, Any] = {
        "global_size": 10,
        "global_tokens": None,
        "order": "random",
        "micro_tokens": 40,
        "seed": 3,
    }
    return BatchSettings(**{**values, "rank": 0, "ranks": 1, "packed": True, **changed})


def first_item(loader: StepLoader) -> LocalBatch:
    item = next(iter(loader))
    assert list(item) == [LOCAL_BATCH]
    return item[LOCAL_BATCH]


def test_a_split_is_told_from_other_data(split: StoreSplit) -> None:
    assert is_split(split)
    assert not is_split([split[0]])


@pytest.mark.parametrize("rank", [0, 1])
def test_an_item_has_the_figures_of_the_whole_step(split: StoreSplit, rank: int) -> None:
    loader = StepLoader(split, settings_of(rank=rank, ranks=2))
    ids = loader.dataset.plan(0).step(0)
    item, plan = first_item(loader), plan_local_batch(ids, split.lengths[ids], rank, 2, 40)
    assert item.example_ids.tolist() == np.concatenate(plan.micro_batches).tolist()
    assert [batch.example_ids_S[batch.example_ids_S != NO_EXAMPLE].tolist() for batch in item.micro_batches] == [
        part.tolist() for part in plan.micro_batches
    ]
    assert (item.step_examples, item.step_tokens) == (10, int(split.lengths[ids].sum()))
    assert item.imbalance == plan.imbalance
    assert item.step_weight == 10.0


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_weight_of_a_step_is_the_sum_of_its_classes_weights(split: StoreSplit, ranks: int) -> None:
    loader = StepLoader(split, settings_of(ranks=ranks, class_weights=(0.25, 3.0)))
    labels = split.labels[loader.dataset.plan(0).step(0)]
    assert set(labels.tolist()) == {0, 1}
    assert first_item(loader).step_weight == 0.25 * (labels == 0).sum() + 3.0 * (labels == 1).sum()


def test_weights_of_classes_have_no_effect_on_several_labels(tmp_path: Path) -> None:
    several = Store.open(make_store(tmp_path, label_type="(3,)int8")).splits["train"]
    assert first_item(StepLoader(several, settings_of(class_weights=(0.25, 3.0)))).step_weight == 10.0


def test_an_epochs_plan_is_asked_for_once_and_followed(split: StoreSplit) -> None:
    asked: list[int] = []

    def plan_of_epoch(epoch: int) -> EpochPlan:
        asked.append(epoch)
        return EpochPlan(np.arange(6) + epoch, np.array([0, 2, 6]))

    loader = StepLoader(split, settings_of(), plan_of_epoch)
    loader.set_epoch(4)
    assert [sorted(item[LOCAL_BATCH].example_ids.tolist()) for item in loader] == [[4, 5], [6, 7, 8, 9]]
    assert (len(loader), len(loader.dataset), asked) == (2, ROWS["train"], [4])


def test_rows_that_may_change_are_read_again_at_each_epoch(split: StoreSplit, tmp_path: Path) -> None:
    other = Store.open(make_store(tmp_path, seed=1)).splits["train"]
    loader = StepLoader(split, settings_of(), reread=lambda: other)
    before = first_item(loader).step_tokens
    loader.set_epoch(0)
    after, ids = first_item(loader), loader.dataset.plan(0).step(0)
    assert before == int(split.lengths[ids].sum())
    assert after.step_tokens == int(other.lengths[ids].sum())
    (batch, *_) = after.micro_batches
    assert isinstance(batch, PackedBatch)
    assert batch.input_ids_T[0] == other[int(batch.example_ids_S[0])]["input_ids"][0]


def test_padded_batches_have_the_side_of_the_settings_and_no_fixed_sizes(split: StoreSplit) -> None:
    loader = StepLoader(split, settings_of(packed=False, padding_side="left", static_shapes=True))
    assert loader.dataset.make_batch.buckets is None
    batch = max(first_item(loader).micro_batches, key=lambda each: len(each.example_ids_S))
    assert isinstance(batch, PaddedBatch)
    assert batch.attention_mask_SL[:, -1].all()
    assert not batch.attention_mask_SL.all()
    default = BatchMaker(split, packed=False)(batch.example_ids_S.numpy())
    assert isinstance(default, PaddedBatch)
    assert default.attention_mask_SL[:, 0].all()


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_a_rank_evaluates_every_nth_pack_and_fillers_at_the_end(split: StoreSplit, ranks: int) -> None:
    packs = [sorted(pack.tolist()) for pack in plan_evaluation(split.lengths, 60)]
    for rank in range(ranks):
        loader = EvaluationLoader(split, 60, rank, ranks, packed=True)
        ids = [batch.example_ids_S[batch.example_ids_S != NO_EXAMPLE] for batch in loader]
        mine = [sorted(found.tolist()) for found in ids]
        assert mine[: len(packs[rank::ranks])] == packs[rank::ranks]
        assert mine[len(packs[rank::ranks]) :] in ([], [[]])
        assert len(loader) == len(mine) == -(-len(packs) // ranks)


def test_padded_packs_count_their_padding(split: StoreSplit) -> None:
    loader = EvaluationLoader(split, 60, 0, 1, packed=False)
    shapes = [batch.input_ids_SL.shape for batch in loader if isinstance(batch, PaddedBatch)]
    assert len(shapes) == len(loader)
    assert all(rows == 1 or rows * longest <= 60 for rows, longest in shapes)


def test_callbacks_get_the_stock_loader_where_there_is_one(split: StoreSplit) -> None:
    loader = EvaluationLoader(split, 60, 0, 1, packed=True)
    assert loader.for_callbacks() is loader
    assert EvaluationLoader(split, 60, 0, 1, packed=True, stock=lambda: "stock").for_callbacks() == "stock"
    assert loader.dataset is split
