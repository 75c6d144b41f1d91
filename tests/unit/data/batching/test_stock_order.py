"""Tests the stock Trainer's order of examples against accelerate's own sampler."""

import numpy as np
import pytest
from accelerate.data_loader import SeedableRandomSampler

from ftsys.data.batching.stock_order import stock_plan


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_order_is_accelerates(epoch: int) -> None:
    sampler = SeedableRandomSampler(range(11), data_seed=5)
    sampler.set_epoch(epoch)
    plan = stock_plan(11, 5, epoch, 4, shuffled=True, dropped_below=0)
    assert plan.example_ids.tolist() == list(sampler)
    assert [len(plan.step(k)) for k in range(len(plan))] == [4, 4, 3]


def test_an_order_that_is_not_shuffled_is_the_datas_own() -> None:
    plan = stock_plan(8, 5, 1, 4, shuffled=False, dropped_below=0)
    assert [plan.step(k).tolist() for k in range(len(plan))] == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(("round_of", "kept"), [(2, 10), (4, 8), (11, 11), (12, 0)])
def test_an_incomplete_last_round_is_dropped_where_it_is_asked_for(round_of: int, kept: int) -> None:
    plan = stock_plan(11, 5, 0, 4, shuffled=False, dropped_below=round_of)
    assert np.array_equal(plan.example_ids, np.arange(kept))
    assert plan.starts[-1] == kept
