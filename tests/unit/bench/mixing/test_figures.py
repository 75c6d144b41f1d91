"""Tests the figures of mixing against orders whose figures are known."""

import numpy as np
import pytest

from ftsys.bench.mixing.figures import as_batches, padding, same_companions, spread_of_means

ROWS, SIZE = 6_400, 32


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.repeat([0.0, 1.0], ROWS // 2)


def shuffled(seed: int) -> np.ndarray:
    return as_batches(np.random.default_rng(seed).permutation(ROWS), SIZE)


def test_a_plain_shuffle_has_one(labels: np.ndarray) -> None:
    found = [spread_of_means(labels, shuffled(seed)) for seed in range(20)]
    assert np.mean(found) == pytest.approx(1.0, abs=0.08)
    again = [same_companions(shuffled(seed), shuffled(seed + 100), ROWS) for seed in range(20)]
    assert np.mean(again) == pytest.approx(1.0, abs=0.08)


def test_a_sorted_file_has_batches_of_one_label(labels: np.ndarray) -> None:
    expected = SIZE * (ROWS - 1) / (ROWS - SIZE)
    assert spread_of_means(labels, as_batches(np.arange(ROWS), SIZE)) == pytest.approx(expected)


def test_balanced_batches_have_no_spread(labels: np.ndarray) -> None:
    pairs = np.arange(ROWS).reshape(2, -1).T.ravel()  # an example of each label in turn
    assert spread_of_means(labels, as_batches(pairs, SIZE)) == 0.0


def test_the_same_order_again_has_the_same_companions() -> None:
    assert same_companions(shuffled(1), shuffled(1), ROWS) == pytest.approx((ROWS - 1) / (SIZE - 1))


def test_nobody_accompanies_an_example_that_was_left_out() -> None:
    before, after = as_batches([0, 1, 2], 2), as_batches([2, 3, 0, 1], 2)
    assert same_companions(before, after, 4) == pytest.approx(1 / (2 * 1 / 3))


def test_padding_of_two_batches() -> None:
    assert padding(np.array([1, 3, 5, 5]), as_batches(np.arange(4), 2)) == pytest.approx(2 / 16)
