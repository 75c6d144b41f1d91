"""Tests `ftsys bench mixing`: every order has every example once, and ours mixes as a plain shuffle does."""

import numpy as np
import pytest

from ftsys.bench.mixing.bench import bench_mixing, drawn_lengths
from ftsys.bench.mixing.orders import ORDERS
from ftsys.cli import main

INSTALLED = [name for name in ORDERS if not name.startswith("mosaic")]


@pytest.mark.parametrize("name", INSTALLED)
def test_an_order_has_every_example_once_and_another_order_in_the_next_epoch(name: str) -> None:
    lengths = drawn_lengths(1_000)
    first, second = (ORDERS[name][1](lengths, 32, 1, epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(1_000))
    assert not np.array_equal(first, second)


def test_ours_mixes_a_sorted_file_as_a_plain_shuffle_does() -> None:
    ((rows),) = bench_mixing(["plain", "ours", "ours-grouped", "stock-grouped"], 20_000, 3).tables.values()
    for name in ("plain", "ours"):
        assert rows[name]["labels"] == pytest.approx(1.0, abs=0.2)
        assert rows[name]["lengths"] == pytest.approx(1.0, abs=0.2)
    for name in ("ours-grouped", "stock-grouped"):
        assert rows[name]["labels"] == pytest.approx(1.0, abs=0.2)
        assert rows[name]["lengths"] > 20
        assert rows[name]["padding"] < 0.1 < rows["plain"]["padding"]


def test_a_peer_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "streaming.base.shuffle", None)
    found = bench_mixing(["plain", "mosaic-10000"], 640, 1)
    assert "mosaic-10000: left out, mosaicml-streaming cannot be imported" in found.notes[0]


def test_wrong_input_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "mixing", "--rows", "10"]) == 2
    assert "--rows 10 makes no two batches" in capsys.readouterr().err
