"""Whole trainings, predictions and starts under pytest-benchmark, as in `ftsys bench train`, `eval` and `startup`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import timed
from ftsys.bench.eval import EVAL_PEERS, SPLITS
from ftsys.bench.harness.inputs import make_inputs, read_pairs
from ftsys.bench.harness.measuring import Case
from ftsys.bench.startup import OURS, STOCK, OurStart, StockStart, save_texts, write_run
from ftsys.bench.train import EPOCHS, ROWS, TRAIN_PEERS

Measured = Callable[..., list[dict[str, Any]]]


@pytest.mark.benchmark(group="train")
@pytest.mark.parametrize("peer", TRAIN_PEERS)
def test_train(measured: Measured, case: Case, tmp_path: Path, peer: str) -> None:
    short = make_inputs(read_pairs(min(ROWS, case.inputs.rows["train"])), case.folder, tmp_path / "short")
    blocks = measured("train", peer, rounds=2, epochs=EPOCHS, store=str(short.store), stock=str(short.stock))
    assert all(block["examples"] == EPOCHS * short.rows["train"] for block in blocks)


@pytest.mark.benchmark(group="eval")
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("peer", EVAL_PEERS)
def test_eval(measured: Measured, case: Case, peer: str, split: str) -> None:
    assert all(block["examples"] == case.inputs.rows[split] for block in measured("eval", peer, split=split))


@pytest.mark.benchmark(group="startup")
@pytest.mark.parametrize("peer", [OURS, STOCK])
def test_startup(
    benchmark: BenchmarkFixture, case: Case, tmp_path: Path, peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    pairs = read_pairs()
    data, files = save_texts(pairs, tmp_path)
    ours = peer == OURS
    start = (
        OurStart(write_run(pairs, files, case.folder, tmp_path), tmp_path)
        if ours
        else StockStart(data, case.folder, tmp_path)
    )
    assert all(block["seconds"] > 0 for block in timed(benchmark, start, rounds=3))
