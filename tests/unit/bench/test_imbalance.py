"""Tests the simulated balance of many ranks against results computed by hand."""

import numpy as np
import pytest

from ftsys.bench.harness.output import Findings
from ftsys.bench.imbalance import drawn_lengths, ours, stock
from ftsys.bench.scaling import bench_balance

LENGTHS = np.random.default_rng(3).gamma(8.0, 6.0, 5000).astype(np.int64) + 8


def test_a_stock_step_is_as_long_as_its_longest_example() -> None:
    found = stock(np.array([1, 2, 3, 10]), 1, 4)
    assert (found.imbalance, found.padding, found.efficiency) == pytest.approx((0.0, 1 - 16 / 40, 16 / 40))
    one_long = stock(np.array([9, 1]), 2, 1)  # whichever rank has it
    assert (one_long.imbalance, one_long.padding) == pytest.approx((9 / 5 - 1, 0.0))
    assert one_long.efficiency == pytest.approx(10 / 18)


def test_the_stock_sampler_is_that_of_transformers() -> None:
    """Compare the efficiency of 8 ranks and batches of 4 with transformers' own order, within the noise of the draw."""
    from transformers.trainer_pt_utils import get_length_grouped_indices

    lengths = drawn_lengths(LENGTHS, 8, 4)
    ordered = lengths[get_length_grouped_indices(lengths.tolist(), 4)].reshape(-1, 8, 4)
    fullest = ordered.max(axis=2).max(axis=1) * 4
    own = stock(lengths, 8, 4, length_grouped=True)
    assert own.efficiency == pytest.approx(float(lengths.sum() / (8 * fullest.sum())), rel=0.03)


def test_equal_lengths_are_even_whoever_plans() -> None:
    lengths = np.full(8 * 4 * 3, 50)
    balance, seconds = ours(lengths, 8, 4)
    assert (balance.imbalance, balance.efficiency) == (0.0, 1.0)
    assert seconds > 0
    assert stock(lengths, 8, 4) == stock(lengths, 8, 4, length_grouped=True) == balance


@pytest.mark.parametrize("ranks", [8, 64, 512])
def test_our_ranks_differ_by_two_percent_at_most(ranks: int) -> None:
    lengths = drawn_lengths(LENGTHS, ranks)
    balance, _ = ours(lengths, ranks)
    assert balance.imbalance <= 0.02
    assert balance.efficiency > max(
        stock(lengths, ranks).efficiency, stock(lengths, ranks, length_grouped=True).efficiency
    )


def test_an_epoch_is_whole_steps() -> None:
    assert len(drawn_lengths(LENGTHS, 8)) == 50 * 8 * 32
    assert len(drawn_lengths(LENGTHS, 4096)) == 4 * 4096 * 32
    assert set(np.unique(drawn_lengths(LENGTHS, 8))) <= set(np.unique(LENGTHS))


def test_what_is_not_there_is_said() -> None:
    found = Findings()
    bench_balance(found, iter([("MRPC", LENGTHS)]), ranks=(8,), per_rank=4)
    assert list(found.tables) == ["MRPC: simulated efficiency, 4 examples a rank"]
    assert [note.partition(":")[0] for note in found.notes] == ["SST-2", "MNLI", "RTE"]
    assert set(found.settings["MRPC, 8 ranks"]) == {
        "ours", "stock, length-grouped", "stock, random", "seconds to plan a step",
    }  # fmt: skip
