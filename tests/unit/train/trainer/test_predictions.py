"""Tests that gathered pieces come into the data set's order, and that each example counts once."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from ftsys.data.batching.collate import NO_EXAMPLE
from ftsys.train.trainer.predictions import _in_order

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
