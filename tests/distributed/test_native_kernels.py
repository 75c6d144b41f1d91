"""Ranks that share weights compute with the same kernels, whatever compilers their machines have."""

import os
from collections.abc import Callable

import pytest
from torch import distributed

from ftsys.kernels.native import library
from ftsys.kernels.native.library import native, why_not_native
from ftsys.train.trainer.training_step import _agree_on_native
from tests.distributed.worlds import World


def agreed(rank_without: int | None) -> str | None:
    """What a rank says after all have agreed, where one of them finds no compiler."""
    if distributed.get_rank() == rank_without:
        os.environ["CXX"] = "no-such-compiler"  # the world puts it back
        library._load.cache_clear()
    try:
        _agree_on_native()
        return why_not_native()
    finally:
        library._given_up.clear()
        library._load.cache_clear()


@pytest.mark.skipif(native() is None, reason=f"no native kernels: {why_not_native()}")
def test_all_go_without_where_one_must(world: Callable[[int], World]) -> None:
    lacking = "there is no C++ compiler (CXX='no-such-compiler')"
    assert world(2).run(agreed, 1) == [f"rank 1 has none: {lacking}", lacking]
    assert world(2).run(agreed, None) == [None, None]
