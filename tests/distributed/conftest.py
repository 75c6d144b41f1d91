"""The fixture through which every distributed test gets its ranks."""

from collections.abc import Callable, Iterator

import pytest

from tests.distributed.worlds import World, Worlds


@pytest.fixture(scope="session")
def world() -> Iterator[Callable[[int], World]]:
    """`world(n)` is a world of n gloo ranks, shared by all tests of the session: `world(2).run(function, *args)`."""
    worlds = Worlds()
    yield worlds.get
    worlds.close()
