"""Tests `ftsys report`: finding run folders, a row for each, and the mean over seeds."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftsys.cli import main
from ftsys.errors import ConfigError
from ftsys.report.runs import comparison_rows, find_runs, rows_of_run


def _finished(folder: Path, task: str, seed: int, **metrics: Any) -> Path:
    folder.mkdir(parents=True)
    results = {"task": task, "seed": seed, "model": "tiny", "metrics": metrics}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def _stopped(folder: Path) -> Path:
    folder.mkdir(parents=True)
    status = {"state": "stopped", "exit": 75, "reason": "by SIGTERM", "phase": "train", "step": 7, "attempt": 1}
    (folder / "status.json").write_text(json.dumps(status | {"time": 0.0}))
    return folder


def _mrpc(accuracy: float, f1: float) -> dict[str, Any]:
    return {"validation": {"accuracy": accuracy, "f1": f1, "loss": 0.5, "examples": 408}, "test": {"examples": 9}}


def test_runs_side_by_side_with_the_mean_over_seeds(tmp_path: Path) -> None:
    _finished(tmp_path / "mrpc-1", "mrpc", 1, **_mrpc(0.8, 0.86))
    _finished(tmp_path / "mrpc-2", "mrpc", 2, **_mrpc(0.7, 0.84))
    _finished(tmp_path / "stsb-1", "stsb", 1, validation={"pearson": 0.9, "loss": 0.4, "examples": 9})
    rows, extra = comparison_rows(find_runs([tmp_path]))
    assert [row.run for row in rows] == [
        f"{tmp_path}/mrpc-1  mrpc seed 1",
        f"{tmp_path}/mrpc-2  mrpc seed 2",
        f"{tmp_path}/stsb-1  stsb seed 1",
    ]
    assert [row.run for row in extra] == ["mrpc, mean of 2 seeds", "mrpc, standard deviation"]
    assert extra[0].metrics["accuracy"] == pytest.approx(0.75)
    assert extra[1].metrics["f1"] == pytest.approx(0.02 / 2**0.5)
    assert extra[0].eval_loss == pytest.approx(0.5)


def test_a_second_labelled_split_has_columns_of_its_own(tmp_path: Path) -> None:
    splits = {"validation_matched": {"accuracy": 0.8, "loss": 0.1}, "validation_mismatched": {"accuracy": 0.7}}
    run = find_runs([_finished(tmp_path / "mnli", "mnli", 1, **splits)])[0]
    assert run.metrics == {"accuracy": 0.8, "accuracy validation_mismatched": 0.7}


def test_an_unfinished_run_has_its_state(tmp_path: Path) -> None:
    run = find_runs([_stopped(tmp_path / "a")])[0]
    assert run.label == f"{tmp_path}/a  (stopped)"
    assert comparison_rows([run])[1] == []


def test_a_folder_without_runs_and_a_damaged_one_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = _stopped(tmp_path / "damaged")
    (damaged / "results.json").write_text("{")
    with pytest.raises(ConfigError) as caught:
        find_runs([tmp_path / "empty", damaged, tmp_path / "missing"])
    assert len(caught.value.messages) == 3
    assert "is not a run folder" in caught.value.messages[0]
    assert "is damaged" in caught.value.messages[1]


def test_the_command_prints_the_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _finished(tmp_path / "one", "mrpc", 1, **_mrpc(0.8, 0.86))
    assert main(["report", str(folder)]) == 0
    assert "0.8000" in capsys.readouterr().out
    assert main(["report", "--json", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["metrics"] == {"accuracy": 0.8, "f1": 0.86}


def test_a_folder_that_is_not_there_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "missing")]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_an_undefined_value_is_left_out_of_the_mean_and_null_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, value in ((1, 0.8), (2, None), (3, 0.9)):
        _finished(tmp_path / f"stsb-{seed}", "stsb", seed, validation={"pearson": value, "spearmanr": None})
    _, (mean, deviation) = comparison_rows(find_runs([tmp_path]))
    assert mean.metrics == {"pearson": pytest.approx(0.85), "spearmanr": None}
    assert deviation.metrics == {"pearson": pytest.approx(0.1 / 2**0.5), "spearmanr": None}
    assert main(["report", "--json", str(tmp_path)]) == 0
    assert [run["metrics"]["pearson"] for run in json.loads(capsys.readouterr().out)] == [0.8, None, 0.9]


def _owned(folder: Path, seed: int, model: str = "tiny", **train: Any) -> Path:
    """Write a finished run with the record of its attempt."""
    _finished(folder, "mrpc", seed, **_mrpc(0.8, 0.86))
    results = json.loads((folder / "results.json").read_text()) | {"model": model}
    (folder / "results.json").write_text(json.dumps(results))
    identity = {"model": model, "train": {"seed": seed, **train}}
    owner = {"identity": identity, "first_attempt": 1, "host": "h", "pid": 1, "command": [], "time": 0.0}
    (folder / "attempts").mkdir()
    (folder / "attempts" / "000001.json").write_text(json.dumps(owner))
    return folder


def test_runs_of_other_settings_are_no_seeds_of_each_other(tmp_path: Path) -> None:
    for seed in (1, 2):
        _owned(tmp_path / f"slow-{seed}", seed, learning_rate=1e-5)
        _owned(tmp_path / f"fast-{seed}", seed, learning_rate=1e-4)
    _owned(tmp_path / "alone", 3, learning_rate=9e-9)
    _, extra = comparison_rows(find_runs([tmp_path]))
    assert [row.run for row in extra if str(row.run).endswith("mean of 2 seeds")] == [
        f"mrpc, {tmp_path}/fast-1, mean of 2 seeds",
        f"mrpc, {tmp_path}/slow-1, mean of 2 seeds",
    ]


def test_runs_that_start_from_a_model_of_their_own_seed_are_seeds_of_each_other(tmp_path: Path) -> None:
    for seed in (1, 2):
        _owned(tmp_path / f"seed-{seed}", seed, model=f"/t/bundled/mnli/seed-{seed}/model")
    _, extra = comparison_rows(find_runs([tmp_path]))
    assert extra[0].run == "mrpc, mean of 2 seeds"


def test_results_without_steps_still_make_a_row(tmp_path: Path) -> None:
    folder = _finished(tmp_path / "run", "mrpc", 1, **_mrpc(0.8, 0.86))
    (row,) = rows_of_run(folder)
    assert (row.split, row.step, row.epoch, row.metrics["f1"]) == ("validation", 0, None, 0.86)


def test_a_run_with_two_names_is_one_run(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        _finished(tmp_path / f"runs/seed-{seed}", "mrpc", seed, **_mrpc(0.6 + seed / 10, 0.8))
    (tmp_path / "runs/latest").symlink_to("seed-3")
    real = [tmp_path / f"runs/seed-{seed}" for seed in (1, 2, 3)]
    assert [run.folder for run in find_runs([tmp_path / "runs"])] == real
    assert [run.folder for run in find_runs([tmp_path / "runs", tmp_path / "runs/seed-3"])] == real
    assert [run.folder for run in find_runs([tmp_path / "runs/latest"])] == [tmp_path / "runs/latest"]
    (tmp_path / "runs/self").symlink_to(".")
    assert [run.folder for run in find_runs([tmp_path / "runs"])] == real


def test_the_mean_takes_each_seed_once(tmp_path: Path) -> None:
    for name, seed, accuracy in (("a", 42, 0.8), ("b", 42, 0.8)):
        _finished(tmp_path / name, "mrpc", seed, **_mrpc(accuracy, 0.9))
    assert comparison_rows(find_runs([tmp_path]))[1] == []
    _finished(tmp_path / "c", "mrpc", 43, **_mrpc(0.6, 0.9))
    rows, (mean, deviation) = comparison_rows(find_runs([tmp_path]))
    assert len(rows) == 3
    assert (mean.run, mean.metrics["accuracy"]) == ("mrpc, mean of 2 seeds", pytest.approx(0.7))
    assert deviation.metrics["accuracy"] == pytest.approx(0.02**0.5)
