"""Sweeps as users start them: several processes on one study, of which some are killed or stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ftsys.config import load_run
from tests.end_to_end.attempts import make_project

pytest.importorskip("optuna")

FAKE = f"{sys.executable} {Path(__file__).parents[1] / 'fake_trial.py'}"
RUN = 'output_dir = "run"\n[data]\nsource = "synthetic"\nfirst_rows = {train = 8, validation = 8}\n'
SPACE = ("--space", "train.learning_rate=log:1e-5..1e-1")
SECONDS = 120


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "ftsys", "sweep", "run.toml", "--output", "sweep", *words]
    environ, pipe = {**os.environ, "OMP_NUM_THREADS": "1"}, subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, text=True, env=environ, stdout=pipe, stderr=pipe)


def until(reached: Path, process: "subprocess.Popen[str]") -> None:
    """Wait for a file of a trial."""
    deadline = time.monotonic() + SECONDS
    while not reached.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{reached} is not there after {SECONDS} s"
        time.sleep(0.05)


def trials(folder: Path) -> list[dict[str, str]]:
    """The lines of the journal about the ends of trials: Optuna's states are 1 complete, 2 pruned, 3 failed."""
    lines = [json.loads(line) for line in (folder / "sweep/study.journal").read_text().splitlines()]
    return [line for line in lines if line["op_code"] == 6 and line.get("state") in (1, 2, 3)]


def table(text: str) -> list[list[str]]:
    """The rows of the table of trials, best first."""
    return [row for line in text.splitlines() if (row := line.split()) and row[0].isdigit()]


def test_a_study_of_two_processes_of_which_one_is_killed(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    words = (*SPACE, "--trials", "12", "--pruner", "halving", "--command", FAKE)
    first, second = start(tmp_path, *words), start(tmp_path, *words)
    until(tmp_path / "sweep/trial-2/metrics.jsonl", first)
    first.kill()
    said, errors = second.communicate(timeout=SECONDS)
    assert second.returncode == 0, errors
    first.communicate()
    rows = table(said)
    assert sorted(int(row[0]) for row in rows) == list(range(12))
    states = [row[1] for row in rows]
    assert set(states) == {"complete", "pruned"}, said
    assert "(taken over)" in errors
    starts = {path.parent.name: path.read_text().count("started") for path in tmp_path.glob("sweep/trial-*/starts")}
    # The killed process had begun its trial, or was about to.
    assert sorted(starts.values()) in ([1] * 12, [1] * 11 + [2]), "only the killed process's trial may begin twice"
    best = load_run(tmp_path / "sweep/best.toml")
    done = {row[0]: float(row[2]) for row in rows if row[1] == "complete"}
    assert done[rows[0][0]] == max(done.values())
    assert f"{best.train.learning_rate:.4g}" == rows[0][4]
    again = start(tmp_path, *words)
    assert table(again.communicate(timeout=SECONDS)[0]) == rows
    assert len(trials(tmp_path)) == 12


def test_a_stopped_sweep_goes_on_with_the_trial_it_was_in(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f'{RUN}[sweep]\nsampler = "grid"\nspace.train.learning_rate = "1e-3,1e-2"\n')
    process = start(tmp_path, "--command", FAKE)
    until(tmp_path / "sweep/trial-1/metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 75, errors
    assert "start the same command again" in errors
    assert not (tmp_path / "sweep/trial-1/results.json").exists()
    said, errors = start(tmp_path, "--command", FAKE).communicate(timeout=SECONDS)
    assert "trial 1 of 2 (taken over)" in errors
    assert "trial 0 of" not in errors
    assert [row[:4] for row in table(said)] == [["0", "complete", "1.0000", "4"], ["1", "complete", "0.8000", "4"]]


def test_a_study_of_another_space_is_refused_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    words = ("--trials", "1", "--command", FAKE)
    first = start(tmp_path, *SPACE, *words)
    first.communicate(timeout=SECONDS)
    assert first.returncode == 0
    other = start(tmp_path, "--space", "train.learning_rate=1e-3,1e-2", *words)
    _, errors = other.communicate(timeout=SECONDS)
    assert other.returncode == 2, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "holds a study of another space: train.learning_rate was log:1e-05..0.1 and is 0.001,0.01" in line
    assert "Traceback" not in errors
    assert len(trials(tmp_path)) == 1


def failing(first: str) -> Sequence[str]:
    space = ("--space", "train.learning_rate=1e-3", f"trainer.logging_steps={first}")
    return (*space, "--sampler", "grid", "--command", FAKE)


def test_a_trial_that_fails(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    said, errors = start(tmp_path, *failing("1,13,2")).communicate(timeout=SECONDS)
    assert [row[1] for row in table(said)] == ["complete", "complete", "fail"]
    assert "trial 1 failed: exit status 2" in said
    process = start(tmp_path, *failing("13,1"), "--output", "other")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "trial 0 failed before any other had finished" in errors
    assert "Traceback" not in errors


def test_a_trial_whose_run_folder_is_refused_fails_and_is_not_started_again(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    process = start(tmp_path, *failing("1,77,2"))
    try:
        said, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert [row[1] for row in table(said)] == ["complete", "complete", "fail"]
    reason = "exit status 77: the folder belongs to another run: its seed is 1. In a sweep: use another --output."
    assert f"trial 1 failed: {reason}" in said
    assert (tmp_path / "sweep/trial-1/starts").read_text() == "started\n"


@pytest.mark.long
@pytest.mark.timeout(1900)
def test_a_sweep_that_trains(tmp_path: Path, minilm_folder: Path) -> None:
    """The loss tells trials apart: with a model this small, the accuracy of most of them is that of one answer."""
    project = make_project(tmp_path / "project", minilm_folder)
    words = ["--space", "train.learning_rate=log:1e-4..1e-1", "batch.global_size=8,16", "--trials", "12"]
    words += ["--objective", "loss", "--train.max_steps", "60", "--train.eval_every", "10", "--train.save_every", "10"]
    first, second = start(project, *words), start(project, *words)
    until(project / "sweep/trial-3/metrics.jsonl", first)
    first.kill()
    said, errors = second.communicate(timeout=1800)
    assert second.returncode == 0, errors
    first.communicate()
    rows = table(said)
    assert sorted(int(row[0]) for row in rows) == list(range(12))
    assert {row[1] for row in rows} == {"complete", "pruned"}, said
    assert "(taken over)" in errors
    assert all(int(row[3]) < 6 for row in rows if row[1] == "pruned"), said
    assert not list(project.glob("sweep/trial-*/checkpoints"))
    best = json.loads((project / f"sweep/trial-{rows[0][0]}/results.json").read_text())
    assert f"{best['metrics']['validation']['loss']:.4f}" == rows[0][2]
    assert (project / f"sweep/trial-{rows[0][0]}/model/model.safetensors").exists()
    assert load_run(project / "sweep/best.toml").train.learning_rate > 0
