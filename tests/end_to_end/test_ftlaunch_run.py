"""Tests `ftlaunch run` with real ranks on this machine: as under plain torchrun, killed, stopped and resumed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.commands import call, environment, free_port, losses, ranks_of, read_json, write_run_file

RUN = [sys.executable, "-m", "launcher", "run", "run.toml", "--gpus-per-node", "2", "--cpu"]
LONG = [
    "--train.max_steps",
    "12",
    "--train.eval_every",
    "never",
    "--train.save_every",
    "12",
    "--batch.global_size",
    "8",
    "--data.first_rows",
    "{validation = 16}",
]
"""On the bundled model a step is slow enough to be hit."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("ftlaunch")
    write_run_file(folder, model=tiny_model)
    return folder


def written(run: Path) -> set[str]:
    """What a run has written, but for its logs."""
    return {str(path.relative_to(run)) for path in run.rglob("*") if "logs" not in path.relative_to(run).parts}


def test_a_good_run_leaves_what_plain_torchrun_leaves(folder: Path) -> None:
    ended = call(*RUN, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    announced, *rest = ended.stderr.splitlines()
    local = r"ftlaunch: local \(no SLURM allocation, no hostfile\): torchrun starts 2 CPU ranks, \d+ threads?"
    assert re.match(local, announced), announced
    assert "2 CPU ranks, DDP, fp32; 16 examples a step" in rest
    torchrun = ["torchrun", "--nproc-per-node", "2", "--master-port", free_port(), "-m", "ftsys", "train", "run.toml"]
    plain = call(*torchrun, "--output_dir", str(folder / "plain"), cwd=folder)
    assert plain.returncode == 0, plain.stderr
    assert losses(folder / "run") == pytest.approx(losses(folder / "plain"), rel=1e-6)
    assert written(folder / "run") == written(folder / "plain")
    ours, theirs = (read_json(folder / name / "results.json")["metrics"]["validation"] for name in ("run", "plain"))
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ended.stdout.replace("/run/", "/plain/") == plain.stdout
    again = call(*RUN, cwd=folder)
    assert (again.returncode, "finished" in again.stdout) == (0, True)


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """A longer run that has trained its first step."""
    process = subprocess.Popen(
        [*RUN, *LONG, *words], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not (folder / "run/metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_killed_rank_then_a_stop_then_the_end(tmp_path: Path, minilm_folder: Path) -> None:
    write_run_file(tmp_path)
    process = start(tmp_path)
    os.kill(ranks_of(tmp_path)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1, err
    last = err.splitlines()[-1]
    assert "error: rank 1 on " in last
    assert last.endswith(f"its log: {tmp_path}/run/logs/rank-1.log")
    assert read_json(tmp_path / "run/status.json")["exit"] == 1
    assert ranks_of(tmp_path) == {}

    (tmp_path / "run/metrics.jsonl").unlink()
    process = start(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 75, err
    assert err.count("stopped by SIGINT; everything on disk is complete") == 1
    status = read_json(tmp_path / "run/status.json")
    assert (status["state"], status["exit"], status["attempt"]) == ("stopped", 75, 2)
    assert (tmp_path / f"run/checkpoints/step-{status['step']:06}/manifest.json").exists()
    assert ranks_of(tmp_path) == {}

    ended = call(*RUN, *LONG, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "resuming from" in ended.stderr
    assert len(losses(tmp_path / "run")) == 12
    titles = [line for line in (tmp_path / "run/logs/rank-1.log").read_text().splitlines() if line.startswith("---- ")]
    assert len(titles) == 3


def test_what_only_a_rank_finds_wrong_is_said_once(tmp_path: Path) -> None:
    write_run_file(tmp_path)
    ended = call(*RUN, "--model.name", str(tmp_path / "no-such-model"), cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.count("error: model") == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].endswith(f"its log: {tmp_path}/run/logs/rank-0.log")
