"""Tests how a training loop is cut into blocks."""

import itertools
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from ftsys.bench.harness import turns
from ftsys.bench.harness.turns import Finished, Turns


class Orders:
    """Gives a number of orders, and keeps the answers."""

    def __init__(self, left: int) -> None:
        self.left, self.answers = left, list[Mapping[str, Any]]()

    def turn(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def answer(self, figures: Mapping[str, Any]) -> None:
        self.answers.append(figures)


def blocks(monkeypatch: pytest.MonkeyPatch, steps: int, seconds: float) -> list[int]:
    """Return the steps of two blocks of a training whose step takes half a second."""
    taken = itertools.count()
    now = 0.0
    monkeypatch.setattr(turns.time, "perf_counter", lambda: now)
    orders, done = Orders(2), itertools.count(step=100)
    cut = Turns(orders, steps, lambda: (next(done), 0), lambda: None, seconds)
    with suppress(Finished):
        for step in taken:
            now = step / 2
            cut.begin_step()
    assert orders.left == -1
    assert all("cpu_seconds" in figures for figures in orders.answers)
    return [int(figures["steps"]) for figures in orders.answers]


def test_a_block_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert blocks(monkeypatch, steps=4, seconds=0.0) == [4, 4]


def test_a_block_goes_on_until_its_seconds_have_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert blocks(monkeypatch, steps=1, seconds=5.0) == [10, 10]
    assert blocks(monkeypatch, steps=20, seconds=5.0) == [20, 20]
