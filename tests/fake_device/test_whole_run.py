"""Tests `ftsys train` on a fake GPU: plan, training, evaluation, background saves, a resume, and the results' files."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftsys.cli import main
from ftsys.data.batching.collate import _copy_stream
from ftsys.train.callbacks.graceful_stop import GracefulStop
from ftsys.train.perf import matmul_rate
from tests.end_to_end.attempts import make_project
from tests.fake_device.cuda_api import fake_gpu
from tests.fake_device.modes import Ledger
from tests.fake_device.reach import following, missed

RUN_FILE = """
output_dir = "run"
[task]
name = "paraphrase"
[data]
source = "synthetic"
[model]
name = "model"
[batch]
global_size = 8
[train]
max_steps = 6
eval_every = 3
save_every = 3
learning_rate = 1e-3
[trainer]
logging_steps = 2
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setitem(matmul_rate.SIZES, "cuda", 64)
    _copy_stream.cache_clear()  # that of another test's fake device
    with fake_gpu() as ledger:
        yield ledger


@pytest.fixture
def run_file(tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    make_project(tmp_path / "project", minilm_folder, RUN_FILE)
    monkeypatch.chdir(tmp_path / "project")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    (found,) = (tmp_path / "project").glob("*.toml")
    return str(found)


def losses_of(folder: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def stop_in_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Have the process get SIGTERM in that step, counted from 0."""
    start = GracefulStop.on_pre_optimizer_step

    def stopped(stopping: GracefulStop, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        start(stopping, args, state, control, **kwargs)

    monkeypatch.setattr(GracefulStop, "on_pre_optimizer_step", stopped)


def test_a_whole_run_on_the_gpu_resumes_where_it_was_stopped(
    gpu: Ledger, run_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with following(__file__) as lines:
        assert main(["train", run_file, "--output_dir", "whole"]) == 0
    assert missed(lines) == []
    plan = json.loads(Path("whole/plan.json").read_text())
    assert (plan["device"], plan["precision"], plan["backend"]) == ("cuda", "bf16", "none")
    assert gpu.launches.total() > 1000
    assert {path.name for path in Path("whole/checkpoints").iterdir()} == {"step-000003", "step-000006"}
    with monkeypatch.context() as patch:
        stop_in_step(patch, 3)
        assert main(["train", run_file, "--output_dir", "parts"]) == 75
    assert "step-000004" in {path.name for path in Path("parts/checkpoints").iterdir()}
    assert main(["train", run_file, "--output_dir", "parts"]) == 0
    assert losses_of("parts") == losses_of("whole")
