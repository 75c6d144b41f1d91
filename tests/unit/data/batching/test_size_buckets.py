"""Few sizes for many batches: the fewest fillers there can be, and batches that stand for the same examples."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftsys.data.batching.collate import NO_EXAMPLE, PackedBatch
from ftsys.data.batching.loader import LOCAL_BATCH, BatchSettings, StepLoader
from ftsys.data.batching.plan import plan_epoch
from ftsys.data.batching.size_buckets import MAX_SIZES, SizeBuckets, few_sizes
from ftsys.data.store.reader import Store
from tests.distributed.tiny_run import make_store


def fillers(counts: np.ndarray, sizes: np.ndarray) -> int:
    return int((sizes[np.searchsorted(sizes, counts)] - counts).sum())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 4))
def test_no_other_sizes_cost_fewer_fillers(counts: list[int], most: int) -> None:
    found, tokens = few_sizes(np.array(counts), most), np.array(counts)
    values = np.unique(tokens)
    others = (np.array([*rest, values[-1]]) for rest in combinations(values[:-1], min(most, len(values)) - 1))
    assert len(found) <= most
    assert fillers(tokens, found) == min(fillers(tokens, np.sort(other)) for other in others)


def test_eight_sizes_cost_an_epoch_less_than_two_hundredths() -> None:
    """Lengths as MRPC's, 53 +- 14 tokens, in batches of 32; epochs that were not looked at cost as little."""
    lengths = np.random.default_rng(0).normal(53, 14, 3668).clip(15, 103).astype(np.int64)
    plans = [plan_epoch(lengths, 1, epoch, global_size=32) for epoch in range(3)]
    buckets = SizeBuckets.of(lengths, [plans[0].step(k) for k in range(len(plans[0]))])
    for plan in plans:
        sums = np.array([lengths[plan.step(k)].sum() for k in range(len(plan) - 1)])
        sizes = np.array(buckets.tokens)
        inside = sums[sums < sizes[-1]]
        assert len(inside) >= len(sums) - 2
        assert fillers(inside, sizes) < 0.02 * inside.sum()
    assert len(buckets.tokens) == MAX_SIZES


def test_a_static_batch_is_its_examples_and_one_filler(tmp_path: Path) -> None:
    split = Store.open(make_store(tmp_path)).splits["train"]
    settings = BatchSettings(10, None, "random", 400, 3, 0, 1, True, static_shapes=True)
    batches = [item[LOCAL_BATCH].micro_batches[0] for item in StepLoader(split, settings)]
    static = [batch for batch in batches if isinstance(batch, PackedBatch) and batch.is_static]
    assert len(static) >= 3
    for batch in static:
        assert batch.example_ids_S[-1] == NO_EXAMPLE
        assert (batch.example_ids_S[:-1] != NO_EXAMPLE).all()
        assert len(batch.example_ids_S) == 11
        assert batch.max_seqlen == split.lengths.max()
        assert batch.cu_seqlens[-1] == len(batch.input_ids_T)
    last = batches[-1]  # six examples: it is like no other, and keeps its own size
    assert isinstance(last, PackedBatch)
    assert not last.is_static
    real = [set(batch.example_ids_S.tolist()) - {NO_EXAMPLE} for batch in batches]
    assert sorted(set.union(*real)) == list(range(len(split)))


def test_a_batch_unlike_the_sample_keeps_its_own_size(tmp_path: Path) -> None:
    split = Store.open(make_store(tmp_path)).splits["train"]
    buckets, rows = SizeBuckets((200,), 10, 24), split.gather(np.arange(10))
    assert buckets.tokens_for(rows) is None or len(rows.tokens) > 187
    assert SizeBuckets((len(rows.tokens),), 10, 24).tokens_for(rows) is None
    assert SizeBuckets((len(rows.tokens) + 1,), 10, 24).tokens_for(rows) == len(rows.tokens) + 1
    assert SizeBuckets((len(rows.tokens) + 1,), 9, 24).tokens_for(rows) is None


@pytest.mark.parametrize("first", [0, 2])
def test_the_sizes_are_those_of_the_run_whatever_epoch_a_life_begins_with(tmp_path: Path, first: int) -> None:
    split = Store.open(make_store(tmp_path)).splits["train"]
    loader = StepLoader(split, BatchSettings(10, None, "random", 400, 3, 0, 1, True, static_shapes=True))
    loader.set_epoch(first)
    sizes = {batch.computed_tokens for item in loader for batch in item[LOCAL_BATCH].micro_batches if batch.is_static}
    fresh = StepLoader(split, BatchSettings(10, None, "random", 400, 3, 0, 1, True, static_shapes=True))
    assert sizes <= set(fresh.dataset.make_batch.buckets.tokens)
