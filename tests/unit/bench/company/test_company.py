"""Tests the figures of trainings in company, with small programs in place of trainings."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftsys.bench.company import together
from ftsys.bench.company.bench import ALONE, LOOP, PAIR, note_company
from ftsys.bench.company.together import Together, machine_seconds, process_seconds
from ftsys.bench.harness.inputs import Inputs
from ftsys.bench.harness.measuring import Case
from ftsys.bench.harness.output import Findings
from ftsys.bench.harness.rounds import Figures, Worker
from ftsys.cli import main

TRAINING = """
import json, sys
print(json.dumps({}), flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": 2.0, "tokens": int(sys.argv[1]), "cpu_seconds": 1.0}), flush=True)
"""


def training(tokens: int, folder: Path) -> Worker:
    worker = Worker(str(tokens), folder / f"{tokens}.log", program=(sys.executable, "-c", TRAINING))
    worker.wait_until_ready()
    return worker


def test_a_pair_has_the_rates_of_both(tmp_path: Path) -> None:
    workers = [training(100, tmp_path), training(300, tmp_path)]
    figures = Together(workers).block()
    assert (figures["rate"], figures["each"], figures["cpus"]) == (200.0, [50.0, 150.0], 1.0)
    assert figures["others"] >= 0
    for worker in workers:
        worker.close()


def test_the_busy_loop_runs_while_the_training_does_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: list[subprocess.Popen[bytes]] = []
    seen: list[int | None] = []

    class Recorded(subprocess.Popen):
        def __init__(self, *words: Any, **named: Any) -> None:
            super().__init__(*words, **named)
            loops.append(self)

    worker = training(100, tmp_path)
    receive = worker.receive

    def looking() -> Figures:
        seen.extend(loop.poll() for loop in loops)
        return receive()

    monkeypatch.setattr(together.subprocess, "Popen", Recorded)
    monkeypatch.setattr(worker, "receive", looking)
    Together([worker], loop_on=sorted(os.sched_getaffinity(0))).block()
    assert seen == [None]
    assert loops[0].poll() == -signal.SIGKILL
    worker.close()


def test_seconds_of_the_machine_and_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 200 300 9999 77 10 20 5 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert machine_seconds(tmp_path / "stat") == 630 / os.sysconf("SC_CLK_TCK")
    assert process_seconds(os.getpid()) > 0


def test_each_figure_is_divided_by_the_same_trainer_alone(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path, tmp_path, "synthetic sample", {"train": 64}, {"train": 1})
    block = {"seconds": 8.0, "each": [], "cpus": 2.0, "others": 0.5}
    fast = {ALONE: [1000.0, 500.0], PAIR: [950.0, 475.0], LOOP: [600.0, 300.0]}
    rounds: dict[str, list[Figures]] = {
        f"{side}, {how}": [{**block, "rate": rate * share} for rate in rates]
        for side, share in (("ours", 1.0), ("course", 0.5))
        for how, rates in fast.items()
    }
    found = Findings()
    note_company(found, Case("tiny", tmp_path, inputs, tmp_path), ["ours", "course"], rounds)
    assert found.ratios["tiny: ours, pair / alone"] == pytest.approx(0.95)
    assert found.ratios["tiny, pair: ours / course"] == pytest.approx(2.0)
    row = found.tables["tiny: training in company"]["course, beside a busy loop"]
    assert row["tokens/CPU s"] == 225 / 2
    assert (row["1000 tokens/s"], row["of alone"], row["others' CPUs"]) == (0.225, pytest.approx(0.6), 0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cpus", "100000"], "--cpus 100000 is not possible"),
        (["--cpus", "0"], "--cpus 0 is not possible"),
        (["--peers", "accelerate"], "--peers 'accelerate' is not a peer"),
    ],
)
def test_wrong_input_is_one_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "company", *words]) == 2
    assert message in capsys.readouterr().err
