"""Tests the example script's result files, written from a made-up run folder."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ftsys.errors import DamagedError
from ftsys.run_glue.result_files import evaluation_results, write_result_files
from ftsys.run_glue.results import RunResults, results_of_run
from ftsys.run_glue.translate import Request
from ftsys.tasks import GLUE, Task

SPEED = {"runtime": 2.0, "samples_per_second": 4.0, "steps_per_second": 1.0}
TRAINING = {"train_runtime": 9.0, "train_loss": 0.5, "epoch": 2.0}


def asked(task: str, train: bool = True, evaluate: bool = True, predict: bool = True) -> Request:
    return Request({}, train, evaluate, predict, False, task, None, ())


def run_folder(folder: Path, task: Task, metrics: dict[str, Any], rows: list[str]) -> Path:
    """A finished run with the given metrics of each evaluation split, and predictions of the test splits."""
    found = {split: {**metrics, "loss": 0.25, "examples": 8} for split in task.evaluation_splits}
    results = {"task": task.name, "metrics": found, "evaluation_speed": dict.fromkeys(found, SPEED)}
    (folder / "predictions").mkdir(parents=True)
    for split in task.test_splits:
        with (folder / f"predictions/{split}.tsv").open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t")
            writer.writerows([("index", "prediction", "label"), *((index, row, "") for index, row in enumerate(rows))])
    old, new = {"train_runtime": 1.0, "train_loss": 9.0, "epoch": 1.0}, {**TRAINING, "total_flos": 3.0, "step": 12}
    state = {"log_history": [{"loss": 0.7, "step": 1}, old, new, {"eval_loss": 0.1}]}
    for name, content in {"results": results, "plan": {"train_rows": 64}, "trainer_state": state}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text("{}")
    (folder / "model/model.safetensors").write_bytes(b"weights")
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_all_files_of_a_task(tmp_path: Path) -> None:
    task = GLUE["mrpc"]
    folder = run_folder(tmp_path / "out", task, {"accuracy": 0.75, "f1": 0.85}, ["equivalent", "not_equivalent"])
    write_result_files(folder, task, results_of_run(folder), asked("mrpc"))
    evaluation = {
        "epoch": 2.0,
        "eval_accuracy": 0.75,
        "eval_combined_score": pytest.approx(0.8),
        "eval_f1": 0.85,
        "eval_loss": 0.25,
        "eval_runtime": 2.0,
        "eval_samples": 8,
        "eval_samples_per_second": 4.0,
        "eval_steps_per_second": 1.0,
    }
    training = {**TRAINING, "total_flos": 3.0, "train_samples": 64}
    assert read(folder / "eval_results.json") == evaluation
    assert read(folder / "train_results.json") == training
    assert read(folder / "all_results.json") == evaluation | training
    text = (folder / "predict_results_mrpc.txt").read_text()
    assert text == "index\tprediction\n0\tequivalent\n1\tnot_equivalent\n"
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert list(read(folder / "all_results.json")) == sorted(evaluation | training)


def test_a_second_time_gives_the_same_bytes(tmp_path: Path) -> None:
    task = GLUE["mrpc"]
    folder = run_folder(tmp_path / "out", task, {"accuracy": 0.75, "f1": 0.85}, ["equivalent"])
    write_result_files(folder, task, results_of_run(folder), asked("mrpc"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_result_files(folder, task, results_of_run(folder), asked("mrpc"))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_regression_has_three_digits(tmp_path: Path) -> None:
    task = GLUE["stsb"]
    folder = run_folder(tmp_path / "out", task, {"pearson": 0.5, "spearmanr": 0.7}, ["1.23456", "-0.5"])
    write_result_files(folder, task, results_of_run(folder), asked("stsb"))
    assert (folder / "predict_results_stsb.txt").read_text() == "index\tprediction\n0\t1.235\n1\t-0.500\n"
    assert read(folder / "eval_results.json")["eval_combined_score"] == pytest.approx(0.6)


def test_a_regression_that_is_not_a_number_is_written_as_the_script_writes_it(tmp_path: Path) -> None:
    task = GLUE["stsb"]
    folder = run_folder(tmp_path / "out", task, {"pearson": 0.5, "spearmanr": 0.7}, ["1.5", ""])
    write_result_files(folder, task, results_of_run(folder), asked("stsb"))
    assert (folder / "predict_results_stsb.txt").read_text() == "index\tprediction\n0\t1.500\n1\tnan\n"


def test_mnli_has_a_second_evaluation_and_a_second_prediction(tmp_path: Path) -> None:
    task = GLUE["mnli"]
    folder = run_folder(tmp_path / "out", task, {"accuracy": 0.5}, ["neutral"])
    write_result_files(folder, task, results_of_run(folder), asked("mnli"))
    found = read(folder / "eval_results.json")
    assert (found["eval_accuracy"], found["eval_accuracy_mm"], found["eval_samples_mm"], found["epoch_mm"]) == (
        0.5,
        0.5,
        8,
        2.0,
    )
    assert "eval_combined_score" not in found, "one metric has no mean"
    assert sorted(path.name for path in folder.glob("predict_results_*")) == [
        "predict_results_mnli-mm.txt",
        "predict_results_mnli.txt",
    ]


def test_only_what_was_asked_for_is_written(tmp_path: Path) -> None:
    task = GLUE["mrpc"]
    folder = run_folder(tmp_path / "out", task, {"accuracy": 0.75, "f1": 0.85}, ["equivalent"])
    write_result_files(folder, task, results_of_run(folder), asked("mrpc", evaluate=False, predict=False))
    assert not (folder / "eval_results.json").exists()
    assert not list(folder.glob("predict_results_*"))
    assert read(folder / "all_results.json") == read(folder / "train_results.json")


def test_without_training_there_is_no_epoch(tmp_path: Path) -> None:
    metrics = {"validation": {"accuracy": 0.5, "f1": 0.5, "loss": 0.1, "examples": 4}}
    found = evaluation_results(GLUE["mrpc"], RunResults(metrics, {}))
    assert found == {
        "eval_accuracy": 0.5,
        "eval_f1": 0.5,
        "eval_combined_score": 0.5,
        "eval_loss": 0.1,
        "eval_samples": 4,
    }


def test_where_no_link_can_be_made_the_model_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    task = GLUE["mrpc"]
    folder = run_folder(tmp_path / "out", task, {"accuracy": 0.75, "f1": 0.85}, ["equivalent"])
    write_result_files(folder, task, results_of_run(folder), asked("mrpc"))
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not list(folder.glob(".*partial"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", "[]"),
        ("results.json", '{"task": "mrpc", "metrics": [1]}'),
        ("plan.json", "{}"),
        ("plan.json", "[" * 100_000),
        ("trainer_state.json", '{"log_history": [7]}'),
    ],
)
def test_a_damaged_file_of_the_run_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = run_folder(tmp_path / "out", GLUE["mrpc"], {"accuracy": 0.75, "f1": 0.85}, ["equivalent"])
    (folder / name).write_text(content)
    with pytest.raises(DamagedError, match=name):
        results_of_run(folder)
