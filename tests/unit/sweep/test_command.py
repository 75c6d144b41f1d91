"""Tests that `ftsys sweep` refuses wrong input with one message, before it makes a folder or needs a model."""

import errno
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftsys.cli import main
from ftsys.errors import ConfigError

RATE = "train.learning_rate=log:1e-5..1e-4"


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(f'output_dir = "{tmp_path}/out"\n[task]\nname = "mrpc"\n')
    return path


def test_a_run_file_that_changes_is_found_before_the_next_trial(run_file: Path) -> None:
    from ftsys.sweep.settings import read_sweep

    sweep = read_sweep(run_file, [], [RATE], None)
    sweep.check_unchanged()
    run_file.write_text(run_file.read_text() + "[batch]\nglobal_size = 8\n")
    with pytest.raises(ConfigError, match=r"run\.toml has changed since this sweep began"):
        sweep.check_unchanged()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], "the sweep has no space"),
        (["--space", "train.learning_rate"], "'train.learning_rate' is not KEY=VALUES"),
        (["--space", RATE, "--trials", "0"], "sweep.trials=0 cannot be used: write a whole number above 0"),
        (
            ["--space", RATE, "--objective", "f2"],
            "the objective 'f2' is not computed in evaluations: did you mean 'f1'",
        ),
        (["--space", RATE, "--sampler", "bayes"], "sweep.sampler='bayes' cannot be used"),
        (["--space", RATE, "--pruner", "mean"], "sweep.pruner='mean' cannot be used"),
        (["--space", RATE, "--sweep.trails", "3"], "sweep.trails=3 is not a known key: did you mean 'trials'"),
        (["--space", RATE, "--trails", "3"], "is not an argument of `ftsys sweep`"),
        (["--space", "batch.global_size=0,8"], "the space of batch.global_size has 0: batch.global_size=0 cannot be"),
        (["--space", "train.epochs=-1.0..2.0"], "the space of train.epochs has -1.0: train.epochs=-1.0 cannot be used"),
        (["--space", RATE, "--train.seed", "x"], "train.seed='x' cannot be used"),
        (
            ["--space", RATE, "--command", 'ftlaunch run "x'],
            "--command 'ftlaunch run \"x' cannot be split into words (No closing quotation): close its quotation marks",
        ),
        (
            ["--space", RATE, "--command", "train\\"],
            "--command 'train\\\\' cannot be split into words (No escaped char",
        ),
    ],
)
def test_wrong_input_is_one_message(
    words: Sequence[str], wanted: str, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(run_file), *words]) == 2
    said = capsys.readouterr().err
    assert wanted in said
    assert "Traceback" not in said
    assert [path.name for path in run_file.parent.iterdir()] == ["run.toml"]


@pytest.mark.parametrize("words", [["--output", "FILE"], ["--output", "FILE/below"]])
def test_a_file_in_the_place_of_the_folder_is_told_before_anything_is_prepared(
    words: list[str], run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("FILE", str(run_file)) for word in words]
    assert main(["sweep", str(run_file), "--space", RATE, *words]) == 2
    assert f"{str(run_file)!r} is a file" in capsys.readouterr().err


def test_a_disk_that_fails_is_one_message(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ftsys.sweep.run.ensure_store", lambda *_: None)
    monkeypatch.setattr("ftsys.sweep.run.SharedStudy", full)
    assert main(["sweep", str(run_file), "--space", RATE]) == 1
    said = capsys.readouterr().err
    assert "out-sweep': the disk is full. Free some space and start again" in said
    assert "Traceback" not in said


def test_a_machine_without_optuna_is_told_what_to_install(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = util.find_spec
    monkeypatch.setattr("ftsys.sweep.command.find_spec", lambda name: None if name == "optuna" else find(name))
    assert main(["sweep", str(run_file), "--space", RATE]) == 2
    assert "pip install 'ftsys[sweep]'" in capsys.readouterr().err


def test_a_sweep_under_a_launcher_is_refused(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert main(["sweep", str(run_file), "--space", RATE]) == 2
    assert '--command "ftlaunch run"' in capsys.readouterr().err


def test_a_study_of_another_space_is_refused(tmp_path: Path, run_file: Path) -> None:
    pytest.importorskip("optuna")
    from ftsys.errors import ConfigError
    from ftsys.sweep.settings import read_sweep
    from ftsys.sweep.study import JOURNAL, SharedStudy

    def study(*space: str, **more: str) -> SharedStudy:
        words = [word for name, value in more.items() for word in (f"--{name.replace('_', '.', 1)}", value)]
        return SharedStudy(read_sweep(run_file, words, space, tmp_path / "sweep"))

    study(RATE)
    study(RATE, sweep_trials="3")
    with pytest.raises(ConfigError, match=r"another space: train.learning_rate was log:1e-05\.\.0.0001 and is 1,2"):
        study("train.learning_rate=1,2")
    with pytest.raises(ConfigError, match="the objective was accuracy and is f1"):
        study(RATE, sweep_objective="f1")
    with pytest.raises(ConfigError, match="another run: the run file has another"):
        study(RATE, train_epochs="7")
    (tmp_path / "sweep" / JOURNAL).write_text("no journal\n")
    with pytest.raises(ConfigError, match="is not the journal of a sweep, or is damaged"):
        study(RATE)


def test_trials_without_their_journal_are_refused(tmp_path: Path, run_file: Path) -> None:
    pytest.importorskip("optuna")
    from ftsys.errors import ConfigError
    from ftsys.sweep.settings import read_sweep
    from ftsys.sweep.study import JOURNAL, SharedStudy

    sweep = read_sweep(run_file, (), (RATE,), tmp_path / "sweep")
    assert SharedStudy(sweep).next_trial() is not None  # whose process dies
    (tmp_path / "sweep" / JOURNAL).unlink()
    with pytest.raises(ConfigError, match=r"has trials of a sweep \(such as trial-0\S*\), but no study.journal: use"):
        SharedStudy(sweep).next_trial()


def test_a_grid_has_the_same_points_in_any_order_of_the_space(tmp_path: Path, run_file: Path) -> None:
    pytest.importorskip("optuna")
    from ftsys.errors import ConfigError
    from ftsys.sweep.settings import read_sweep
    from ftsys.sweep.study import SharedStudy

    space = ("train.epochs=1.0,2.0", "batch.global_size=8,16")

    def study(*given: str, sampler: str = "grid") -> SharedStudy:
        return SharedStudy(read_sweep(run_file, ["--sweep.sampler", sampler], given, tmp_path / "sweep"))

    tried = []
    for number in range(4):
        shared = study(*(space if number % 2 else reversed(space)))
        claimed = shared.next_trial()
        assert claimed is not None
        tried.append(tuple(sorted(claimed.values.items())))
        shared.end(claimed, "complete", 0.5)
    assert len(set(tried)) == 4
    with pytest.raises(ConfigError, match="another grid: its sampler is grid"):
        study(*space, sampler="tpe")


@pytest.mark.parametrize("died_at", range(4))
def test_a_grid_has_every_point_once_if_a_process_dies_before_it_begins_the_point_that_it_has_queued(
    died_at: int, tmp_path: Path, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    from ftsys.sweep.settings import read_sweep
    from ftsys.sweep.study import SharedStudy

    sweep = read_sweep(run_file, ["--sweep.sampler", "grid"], ("batch.global_size=8,16,32,64",), tmp_path / "sweep")
    shared, tried = SharedStudy(sweep), []
    for number in range(4):
        if number == died_at:
            monkeypatch.setattr(shared.study, "ask", lambda: sys.exit("killed"))
            with pytest.raises(SystemExit):
                shared.next_trial()
            shared = SharedStudy(sweep)
        claimed = shared.next_trial()
        assert claimed is not None
        assert claimed.trial.number == number
        tried.append(claimed.values["batch.global_size"])
        shared.end(claimed, "complete", 0.5)
    assert sorted(tried) == [8, 16, 32, 64]
    assert shared.next_trial() is None


def test_a_trial_that_another_process_has_taken_over_is_lost_not_stopped(
    tmp_path: Path, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftsys.sweep import trial
    from ftsys.sweep.settings import read_sweep
    from ftsys.train.fault_tolerance.signals import Interruption

    save_and_leave = "trap 'exit 75' TERM; touch ready; sleep 60 & wait"
    process = subprocess.Popen(["sh", "-c", save_and_leave], cwd=tmp_path)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    monkeypatch.setattr(trial, "_started", lambda *_: process)
    (tmp_path / "sweep").mkdir()
    claimed: Any = SimpleNamespace(trial=SimpleNamespace(number=0), claim=SimpleNamespace(lost=True), values={})
    sweep = read_sweep(run_file, [], (RATE,), tmp_path / "sweep")
    assert trial.run_trial(sweep, claimed, Interruption(), ["train"]).state == "lost"
    assert process.returncode == 75
