"""Optimizer steps under pytest-benchmark: a round is a block of four steps, as in `ftsys bench step`."""

from collections.abc import Callable
from typing import Any

import pytest

from ftsys.bench.step import MATMUL, STEP_PEERS


@pytest.mark.benchmark(group="step")
@pytest.mark.parametrize("peer", STEP_PEERS)
def test_step(measured: Callable[..., list[dict[str, Any]]], peer: str) -> None:
    assert all(block["steps"] == 4 for block in measured("step", peer))


@pytest.mark.benchmark(group="matmul")
def test_matrix_product(measured: Callable[..., list[dict[str, Any]]]) -> None:
    assert all(block["flops"] > 0 for block in measured(MATMUL, "ours"))
