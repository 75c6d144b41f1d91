"""Tests the wrappers of collectives: with one rank, and with three that hold different amounts."""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from ftsys.distributed import (
    MaxOverRanks,
    all_gather_json,
    all_gather_pieces,
    any_rank,
    broadcast_json,
    collective_device,
    rank,
    world_size,
)
from tests.distributed.worlds import World

CPU = torch.device("cpu")


def in_parts(lengths: list[int], most: int) -> tuple[list[list[int]], list[int]]:
    """The pieces of rows in several parts, 100 a rank, and the rows that each piece has left in the queue."""
    parts = deque(torch.arange(100 * rank(), 100 * rank() + sum(lengths)).split(lengths))
    pieces, left = list[list[int]](), list[int]()
    for piece in all_gather_pieces(parts, most):
        pieces.append(piece.tolist())
        left.append(sum(map(len, parts)))
    return pieces, left


def collectives() -> dict[str, Any]:
    rows = torch.full((rank(), 2), float(rank()))  # rank r has r rows, so rank 0 has none
    return {
        "broadcast": broadcast_json(f"rank {rank()}"),
        "gathered": all_gather_json(rank()),
        "max": MaxOverRanks(10 * rank(), CPU).wait(),
        "any": (any_rank(rank() == world_size() - 1, CPU), any_rank(False, CPU)),
        "rows": [piece.tolist() for piece in all_gather_pieces(deque([rows]), most=1)],
        "no rows": [piece.tolist() for piece in all_gather_pieces(deque([rows[:0]]), most=1)],
        "parts": in_parts([3, 0, 4, 1], most=3),
        "device": collective_device().type,
    }


def test_without_a_process_group_there_is_one_rank() -> None:
    assert collectives() == {
        "broadcast": "rank 0", "gathered": [0], "max": 0, "any": (True, False), "rows": [[]], "no rows": [[]],
        "parts": ([[0, 1, 2], [3, 4, 5], [6, 7]], [5, 2, 0]), "device": "cpu",
    }  # fmt: skip


def test_all_ranks_get_the_same(world: Callable[[int], World]) -> None:
    expected = {
        "broadcast": "rank 0",
        "gathered": [0, 1, 2],
        "max": 20,
        "any": (True, False),
        "rows": [[[1.0, 1.0], [2.0, 2.0]], [[2.0, 2.0]]],
        "no rows": [[]],
        "parts": (
            [
                [0, 1, 2, 100, 101, 102, 200, 201, 202],
                [3, 4, 5, 103, 104, 105, 203, 204, 205],
                [6, 7, 106, 107, 206, 207],
            ],
            [5, 2, 0],
        ),
        "device": "cpu",
    }
    assert world(3).run(collectives) == [expected] * 3
