"""Worlds of ranks for each module: a process keeps the device that DeepSpeed has seen first in it, fake or not."""

from collections.abc import Callable, Iterator

import pytest

from tests.distributed.worlds import World, Worlds


@pytest.fixture(scope="module")
def world() -> Iterator[Callable[[int], World]]:
    """`world(n)` is a world of n gloo ranks, shared by the tests of a module."""
    worlds = Worlds()
    yield worlds.get
    worlds.close()
