"""The batch plan: each example once, the same steps whatever the ranks, balanced shares."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftsys.data.batching import plan as plan_module
from ftsys.data.batching.plan import (
    assign_to_ranks,
    micro_batches,
    plan_epoch,
    plan_evaluation,
    plan_local_batch,
    plan_padded,
)
from ftsys.errors import ConfigError

lengths_of_examples = st.lists(st.integers(1, 128), min_size=1, max_size=300).map(np.array)


@given(lengths_of_examples, st.integers(0, 2**31), st.sampled_from(["random", "length_grouped"]), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_each_example_exactly_once_an_epoch(lengths: np.ndarray, seed: int, order: str, size: int) -> None:
    plan = plan_epoch(lengths, seed, 3, global_size=size, order=order)
    assert sorted(np.concatenate([plan.step(k) for k in range(len(plan))])) == list(range(len(lengths)))
    assert all(len(plan.step(k)) == size for k in range(len(plan) - 1))


@given(lengths_of_examples, st.integers(384, 2000))
@settings(max_examples=80, deadline=None)
def test_steps_by_tokens_are_within_the_budget_and_as_many_in_every_epoch(lengths: np.ndarray, tokens: int) -> None:
    plans = [plan_epoch(lengths, 0, epoch, global_tokens=tokens) for epoch in range(4)]
    assert len({len(plan) for plan in plans}) == 1
    for plan in plans:
        steps = [plan.step(k) for k in range(len(plan))]
        assert sorted(np.concatenate(steps)) == list(range(len(lengths)))
        assert all(len(step) and lengths[step].sum() <= tokens for step in steps)


@given(lengths_of_examples, st.integers(384, 2000), st.integers(1, 50))
@settings(max_examples=80, deadline=None)
def test_steps_by_tokens_do_not_depend_on_the_blocks_of_the_sum(lengths: np.ndarray, tokens: int, block: int) -> None:
    whole = plan_epoch(lengths, 0, 0, global_tokens=tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "BLOCK", block)
        assert np.array_equal(plan_epoch(lengths, 0, 0, global_tokens=tokens).starts, whole.starts)
    ends, total = np.cumsum(lengths[whole.example_ids]), int(lengths.sum())
    targets = [k * total // len(whole) for k in range(1, len(whole))]
    assert whole.starts[1:-1].tolist() == [int((ends <= target).sum()) for target in targets]


@pytest.mark.parametrize("longest", [2**15 - 1, 2**15 + 1, 2**31 - 1])
@pytest.mark.parametrize("rows", [7, 153, 1000])
def test_grouping_sorts_groups_of_steps_and_then_shuffles_the_steps(rows: int, longest: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 9, rows, dtype=np.int32)
    lengths[rows // 2] = longest
    plan = plan_epoch(lengths, 7, 2, global_size=3, order="length_grouped")
    generator = np.random.Generator(np.random.Philox(key=np.array([7, 2], dtype=np.uint64)))
    ids, span = generator.permutation(rows).tolist(), 3 * plan_module.STEPS_PER_GROUP
    groups = [sorted(ids[first : first + span], key=lambda i: -lengths[i]) for first in range(0, rows, span)]
    ordered = [example for group in groups for example in group]
    steps = [ordered[first : first + 3] for first in range(0, rows, 3)]
    last = steps[rows // 3 :]
    steps = [steps[k] for k in generator.permutation(rows // 3)] + last
    assert [plan.step(k).tolist() for k in range(len(plan))] == steps
    assert plan.example_ids.dtype == np.int32


@pytest.mark.parametrize("plan", [plan_evaluation, plan_padded, micro_batches])
def test_examples_of_one_length_keep_their_order(plan: Any) -> None:
    lengths = np.random.default_rng(0).integers(1, 4, 5000)
    found = np.concatenate(plan(lengths, 64))
    assert found.tolist() == sorted(range(5000), key=lambda example: -lengths[example])


def test_ids_take_four_bytes_each_in_the_order_of_a_permutation() -> None:
    ids = plan_epoch(np.ones(1000, dtype=np.int32), 7, 2, global_size=8).example_ids
    generator = np.random.Generator(np.random.Philox(key=np.array([7, 2], dtype=np.uint64)))
    assert (ids.dtype, ids.tolist()) == (np.int32, generator.permutation(1000).tolist())


@pytest.mark.parametrize("sizes", [{"global_size": 32}, {"global_tokens": 8192}])
def test_a_plan_takes_few_bytes_an_example(sizes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "BLOCK", 1 << 16)
    lengths = np.random.default_rng(0).integers(5, 129, 1_000_000, dtype=np.int32)
    tracemalloc.start()
    plan_epoch(lengths, 0, 0, **sizes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(lengths)  # 4 of them are the ids


def test_fewer_tokens_than_three_examples_are_refused() -> None:
    with pytest.raises(ConfigError, match="Write 120 or more"):
        plan_epoch(np.array([40, 3]), 0, 0, global_tokens=119)


def test_the_plan_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.arange(1, 101)
    first = plan_epoch(lengths, 7, 1, global_size=8).example_ids
    assert np.array_equal(first, plan_epoch(lengths, 7, 1, global_size=8).example_ids)
    assert not np.array_equal(first, plan_epoch(lengths, 7, 2, global_size=8).example_ids)
    assert not np.array_equal(first, plan_epoch(lengths, 8, 1, global_size=8).example_ids)


def test_length_grouping_computes_less_padding_than_random() -> None:
    lengths = np.random.default_rng(0).integers(10, 120, 1000)

    def padded(order: str) -> int:
        plan = plan_epoch(lengths, 0, 0, global_size=32, order=order)
        return sum(int(lengths[plan.step(k)].max()) * len(plan.step(k)) for k in range(len(plan)))

    assert padded("length_grouped") < 1.1 * lengths.sum() < padded("random")


@given(lengths_of_examples, st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_a_deal_is_a_partition_with_equal_counts_and_balanced_tokens(lengths: np.ndarray, ranks: int) -> None:
    order, owners = assign_to_ranks(lengths, ranks)
    parts = [order[owners == rank] for rank in range(ranks)]
    assert sorted(np.concatenate(parts)) == list(range(len(lengths)))
    counts = [len(part) for part in parts]
    assert max(counts) - min(counts) <= 1
    loads = [int(lengths[part].sum()) for part in parts]
    assert max(loads) - min(loads) <= lengths.max()


@given(lengths_of_examples, st.integers(128, 1000))
@settings(max_examples=80, deadline=None)
def test_micro_batches_hold_everything_within_the_budget(lengths: np.ndarray, budget: int) -> None:
    parts = micro_batches(lengths, budget)
    assert sorted(np.concatenate(parts)) == list(range(len(lengths)))
    assert all(int(lengths[part].sum()) <= budget for part in parts)


@given(lengths_of_examples, st.integers(1, 5), st.integers(128, 600))
@settings(max_examples=80, deadline=None)
def test_every_rank_computes_the_same_count_and_its_own_part(lengths: np.ndarray, ranks: int, budget: int) -> None:
    ids = np.arange(100, 100 + len(lengths))
    shares = [plan_local_batch(ids, lengths, rank, ranks, budget) for rank in range(ranks)]
    order, owners = assign_to_ranks(lengths, ranks)
    cuts = [micro_batches(lengths[order[owners == rank]], budget) for rank in range(ranks)]
    assert {len(share.micro_batches) for share in shares} == {max(len(cut) for cut in cuts)}
    for rank, share in enumerate(shares):
        own = ids[order[owners == rank]]
        assert [part.tolist() for part in share.micro_batches if len(part)] == [
            own[part].tolist() for part in cuts[rank] if len(part)
        ]
        assert share.step_tokens == lengths.sum()
        loads = [int(lengths[order[owners == other]].sum()) for other in range(ranks)]
        assert share.imbalance == pytest.approx(max(loads) * ranks / max(sum(loads), 1) - 1)


def test_shares_have_the_same_number_of_micro_batches_on_every_rank() -> None:
    ids, lengths = np.array([40, 41, 42, 43, 44]), np.array([100, 1, 1, 1, 1])
    shares = [plan_local_batch(ids, lengths, rank, 3, micro_tokens=100) for rank in range(3)]
    assert len({len(share.micro_batches) for share in shares}) == 1
    everything = np.concatenate([part for share in shares for part in share.micro_batches])
    assert sorted(everything) == ids.tolist()
    assert shares[0].step_examples == 5
    assert shares[0].step_tokens == 104
    assert shares[0].imbalance == pytest.approx(100 * 3 / 104 - 1)


def test_more_ranks_than_examples_leaves_ranks_with_an_empty_micro_batch() -> None:
    shares = [plan_local_batch(np.array([9]), np.array([5]), rank, 4, 100) for rank in range(4)]
    assert [len(share.micro_batches) for share in shares] == [1, 1, 1, 1]
    assert sum(len(share.micro_batches[0]) for share in shares) == 1


@given(lengths_of_examples)
@settings(max_examples=60, deadline=None)
def test_evaluation_packs_hold_each_example_once_longest_first(lengths: np.ndarray) -> None:
    packs = plan_evaluation(lengths, 256)
    assert sorted(np.concatenate(packs)) == list(range(len(lengths)))
    ordered = lengths[np.concatenate(packs)]
    assert (np.diff(ordered) <= 0).all()
    assert all(lengths[pack].sum() <= 256 for pack in packs)


@pytest.mark.parametrize("equal", [False, True])
@given(lengths=lengths_of_examples)
@settings(max_examples=60, deadline=None)
def test_padded_batches_stay_within_their_tokens_with_the_padding(lengths: np.ndarray, equal: bool) -> None:
    batches = plan_padded(lengths, 256, equal)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= 256 for batch in batches)
    assert not equal or all(len(set(lengths[batch])) == 1 for batch in batches)


def test_one_long_example_does_not_pad_all_short_ones() -> None:
    lengths = np.array([8] * 60 + [512])
    assert max(len(batch) * lengths[batch].max() for batch in plan_padded(lengths, 1024)) <= 1024
    assert plan_padded(np.array([], dtype=np.int32), 1024) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"global_size": 8, "global_tokens": 64}, "batch.global_size=8"),
        ({}, "batch.global_tokens=None"),
        ({"global_size": 8, "order": "sorted"}, "'sorted'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_epoch(np.array([3, 4]), 0, 0, **arguments)


def test_no_examples_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no examples"):
        plan_epoch(np.array([], dtype=int), 0, 0, global_size=8)
