"""Runs the GPU's tests in the order of what they tell, and starts none after a deadline."""

import time

import pytest

DEADLINE = 280.0
"""Seconds from the start of pytest: with the last test's own time, the whole folder takes less than five minutes."""
ORDER = (
    "test_a_training_on_the_gpu_follows_the_cpus",
    "test_keyed_dropout_is_the_references",
    "test_it_equals_the_reference",
    "test_a_training_by_recorded_passes_follows_the_plain_one",
    "test_two_backward_passes_of_ours_agree_bit_for_bit",
)
"""Tests by name, the most telling first; the others follow."""

_STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu-seconds", type=float, default=DEADLINE, help=f"start no test of tests/gpu later (default {DEADLINE:.0f})"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put this folder's tests in order, in the places that they have among all tests."""
    places = [index for index, item in enumerate(items) if "/tests/gpu/" in str(item.path)]
    ordered = sorted((items[index] for index in places), key=_rank)
    for index, item in zip(places, ordered, strict=True):
        items[index] = item


def _rank(item: pytest.Item) -> int:
    name = item.name.partition("[")[0]
    return ORDER.index(name) if name in ORDER else len(ORDER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that would start after the deadline."""
    limit = item.config.getoption("--gpu-seconds", DEADLINE)
    if time.monotonic() - _STARTED > limit:
        pytest.skip(f"--gpu-seconds {limit:.0f}: the time is up")
