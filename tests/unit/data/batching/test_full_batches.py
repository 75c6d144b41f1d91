"""Tests that batches are as full as they may be, and that orders and shares are exactly those of slow references."""

from itertools import pairwise
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftsys.data.batching.plan import assign_to_ranks, micro_batches, plan_epoch, plan_evaluation, plan_local_batch

lengths_of_examples = st.lists(st.integers(1, 128), min_size=1, max_size=100).map(np.array)
MANY_TIES = np.array([4, 3] * 60)
TIES_IN_ORDER = [*range(0, 120, 2), *range(1, 120, 2)]


@given(lengths_of_examples, st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_the_next_example_never_fits(lengths: np.ndarray, budget: int) -> None:
    for parts in (micro_batches(lengths, budget), plan_evaluation(lengths, budget)):
        assert all(len(part) == 1 or lengths[part].sum() <= budget for part in parts)
        assert all(lengths[part].sum() + lengths[after[0]] > budget for part, after in pairwise(parts))


def test_a_budget_is_used_to_the_last_token() -> None:
    assert [part.tolist() for part in micro_batches(np.array([5, 5, 5]), 10)] == [[0, 1], [2]]
    assert [part.tolist() for part in micro_batches(np.array([9, 5, 5]), 8)] == [[0], [1], [2]]


def test_no_examples_are_one_empty_micro_batch() -> None:
    (only,) = micro_batches(np.empty(0, dtype=np.int64), 8)
    assert only.tolist() == []
    share = plan_local_batch(np.array([9]), np.array([5]), 1, 2, 100)
    assert [(part.dtype, len(part)) for part in share.micro_batches] == [(np.int64, 0)]


def test_equal_lengths_keep_their_order_on_every_machine() -> None:
    assert np.concatenate(micro_batches(MANY_TIES, 50)).tolist() == TIES_IN_ORDER
    assert np.concatenate(plan_evaluation(MANY_TIES, 50)).tolist() == TIES_IN_ORDER
    order, owners = assign_to_ranks(MANY_TIES, 40)
    assert order.tolist() == TIES_IN_ORDER
    assert owners[:40].tolist() == list(range(40))


@given(lengths_of_examples, st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_a_deal_is_that_of_a_slow_reference(lengths: np.ndarray, ranks: int) -> None:
    order, loads, owners = sorted(range(len(lengths)), key=lambda index: -lengths[index]), [0] * ranks, []
    for first in range(0, len(order), ranks):
        lightest = sorted(range(ranks), key=loads.__getitem__)
        for index, rank in zip(order[first : first + ranks], lightest, strict=False):
            owners.append(rank)
            loads[rank] += int(lengths[index])
    found = assign_to_ranks(lengths, ranks)
    assert [each.tolist() for each in found] == [order, owners]


def grouped_reference(lengths: np.ndarray, seed: int, epoch: int, size: int) -> list[int]:
    """Sort by length within groups of 50 steps, shuffle the whole steps, and leave the rest at the end."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    ids, ordered = generator.permutation(len(lengths)).tolist(), list[int]()
    for first in range(0, len(ids), 50 * size):
        ordered += sorted(ids[first : first + 50 * size], key=lambda index: -lengths[index])
    whole = len(ordered) // size
    shuffled = [ordered[size * k + at] for k in generator.permutation(whole) for at in range(size)]
    return [*shuffled, *ordered[whole * size :]]


@pytest.mark.parametrize(("rows", "size"), [(307, 3), (300, 3), (40, 7), (5, 8)])
def test_length_grouping_is_that_of_a_slow_reference(rows: int, size: int) -> None:
    lengths = np.random.default_rng(rows).integers(5, 30, rows)
    plan = plan_epoch(lengths, 3, 2, global_size=size, order="length_grouped")
    assert plan.example_ids.tolist() == grouped_reference(lengths, 3, 2, size)


def test_length_grouping_by_tokens_groups_steps_of_the_mean_number_of_examples() -> None:
    lengths = np.random.default_rng(0).integers(5, 30, 900)
    plan = plan_epoch(lengths, 3, 2, global_tokens=100, order="length_grouped")
    assert plan.example_ids.tolist() == grouped_reference(lengths, 3, 2, int(100 / lengths.mean()))


@given(lengths_of_examples, st.integers(0, 1500))
@settings(max_examples=60, deadline=None)
def test_steps_by_tokens_are_as_few_as_the_longest_example_allows(lengths: np.ndarray, more: int) -> None:
    longest = int(lengths.max())
    tokens = 3 * longest + more
    plan = plan_epoch(lengths, 0, 0, global_tokens=tokens)
    assert len(plan) == ceil(int(lengths.sum()) / (tokens - longest))


def test_a_step_has_ids_of_eight_bytes_and_its_own_examples() -> None:
    plan = plan_epoch(np.ones(10, dtype=np.int32), 0, 0, global_size=4)
    assert [plan.step(k).tolist() for k in range(3)] == [
        plan.example_ids[:4].tolist(), plan.example_ids[4:8].tolist(), plan.example_ids[8:].tolist(),
    ]  # fmt: skip
    assert plan.step(2).dtype == np.int64
