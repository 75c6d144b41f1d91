"""The worlds that other distributed tests stand on: results by rank, a failure that says why, a fresh start after."""

import os
import time
from collections.abc import Callable

import pytest
import torch
from torch import distributed

from tests.distributed.worlds import World, WorldError


def rank_sum(extra: int) -> tuple[int, int, int]:
    value = torch.tensor([distributed.get_rank() + extra])
    distributed.all_reduce(value)
    return distributed.get_rank(), int(value), os.getpid()


def fail_on_one() -> None:
    if distributed.get_rank() == 1:
        raise ValueError("rank one says no")
    distributed.barrier()


def sleep_on_one() -> None:
    if distributed.get_rank() == 1:
        time.sleep(600)


def set_environment() -> str | None:
    before = os.environ.get("FTSYS_LEFT_BEHIND")
    os.environ["FTSYS_LEFT_BEHIND"] = "1"
    return before


def test_results_come_by_rank_from_the_same_processes(world: Callable[[int], World]) -> None:
    first, second = world(2).run(rank_sum, 10), world(2).run(rank_sum, 0)
    assert [answer[:2] for answer in first] == [(0, 21), (1, 21)]
    assert [answer[:2] for answer in second] == [(0, 1), (1, 1)]
    assert [answer[2] for answer in first] == [answer[2] for answer in second]


def test_a_function_leaves_no_environment_behind(world: Callable[[int], World]) -> None:
    assert world(2).run(set_environment) == [None, None]
    assert world(2).run(set_environment) == [None, None]


def test_trouble_is_told_and_the_world_restarts() -> None:
    fragile = World(2)
    try:
        with pytest.raises(WorldError, match="in sleep_on_one"):
            fragile.run(sleep_on_one, timeout=1)
        with pytest.raises(WorldError, match=r"(?s)rank 1 raised or died.*rank one says no"):
            fragile.run(fail_on_one)
    finally:
        fragile.close()
