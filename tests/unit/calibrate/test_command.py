"""Tests `ftsys calibrate` on run folders of plain files: what it writes and prints, and each refusal."""

import json
from pathlib import Path

import numpy as np
import pytest

from ftsys.calibrate import source
from ftsys.cli import main
from ftsys.finished.run import FinishedRun
from ftsys.metrics import compute
from ftsys.model_files.calibration import read_calibration
from ftsys.run_folder.predictions import scores_from_logits, write_predictions
from ftsys.tasks import GLUE

COUNT = 200
RANDOM = np.random.default_rng(3)
LABELS = np.arange(COUNT) % 2
MARGIN = (LABELS - 0.3 + RANDOM.normal(size=COUNT)) * 4
LOGITS = np.stack([np.zeros(COUNT), MARGIN], axis=1)


def run_folder(folder: Path, task: str = "mrpc", finished: bool = True, change: float = 1.0) -> Path:
    """Write a finished run of plain files; its predictions are of logits that were multiplied by `change`."""
    (folder / "model").mkdir(parents=True)
    (folder / "model/config.json").write_text("{}")
    (folder / "config.toml").write_text(f'output_dir = "elsewhere"\n[task]\nname = "{task}"\n')
    (folder / "status.json").write_text('{"state": "stopped"}')
    predicted = LOGITS.argmax(axis=1)
    scores = scores_from_logits(LOGITS)
    loss = float(-np.log(scores[np.arange(COUNT), LABELS]).mean())
    known = {**compute(("accuracy", "f1"), predicted, LABELS), "loss": loss, "examples": COUNT}
    path = folder / "predictions/validation.tsv"
    write_predictions(path, np.arange(COUNT), predicted, LABELS, scores_from_logits(LOGITS * change), GLUE["mrpc"])
    if finished:
        results = {"task": task, "metrics": {"validation": known, "test": {"examples": 9}}}
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_it_writes_beside_the_model_and_prints_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path / "run")
    assert main(["calibrate", str(folder), "--metric", "f1"]) == 0
    shown = capsys.readouterr()
    found = read_calibration(folder / "model")
    assert found is not None
    assert (found.metric, list(found.thresholds or {})) == ("f1", ["equivalent"])
    results = json.loads((folder / "calibration_results.json").read_text())
    assert results["temperature"] == found.temperature
    assert results["before"]["metric"] == pytest.approx(compute(("f1",), LOGITS.argmax(axis=1), LABELS)["f1"])
    assert results["after_out_of_fold"]["expected_calibration_error"] < results["before"]["expected_calibration_error"]
    assert "after, out of fold" in shown.out
    assert "own predictions of validation" in shown.err


def test_predictions_of_another_temperature_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that were calibrated already have the same metrics, but another loss."""
    asked = []

    def predicted(finished: FinishedRun, split: str) -> source.Rows:
        asked.append(split)
        return source.Rows(finished.task.labels, LOGITS, LABELS)

    monkeypatch.setattr(source, "_predicted", predicted)
    for change, expected in ((1.0, 0), (0.5, 1)):
        assert main(["calibrate", str(run_folder(tmp_path / str(change), change=change))]) == 0
        assert len(asked) == expected
    pair = [read_calibration(tmp_path / str(change) / "model") for change in (1.0, 0.5)]
    assert pair[0] is not None
    assert pair[1] is not None
    assert pair[0].temperature == pytest.approx(pair[1].temperature, rel=1e-4)


def test_several_labels_a_row_are_predicted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(tmp_path / "run")
    task = '[task]\nname = "mood"\ncolumns = ["text"]\nlabels = ["joy", "anger"]\nmulti_label = true\n'
    text = f'output_dir = "elsewhere"\n{task}[data]\nsource = {{ train = "a.csv", validation = "b.csv" }}\n'
    (folder / "config.toml").write_text(text)
    pair = np.stack([MARGIN, -MARGIN / 2], axis=1), np.stack([LABELS, 1 - LABELS], axis=1)
    monkeypatch.setattr(source, "_predicted", lambda run, split: source.Rows(run.task.labels, *pair))
    assert main(["calibrate", str(folder), "--metric", "mcc"]) == 0
    found = read_calibration(folder / "model")
    assert found is not None
    assert set(found.thresholds or {}) == {"joy", "anger"}


@pytest.mark.parametrize(
    ("task", "finished", "arguments", "reason"),
    [
        ("stsb", True, [], "is a regression"),
        ("mrpc", False, [], "is not finished (its state is 'stopped')"),
        ("mrpc", True, ["--split", "test"], "no labelled split 'test'"),
        ("mrpc", True, ["--split", "tset"], "Splits with labels: validation"),
        ("mrpc", True, ["--folds", "1"], "--folds 1"),
        ("mrpc", True, ["--seed", "-1"], "--seed -1: a seed is 0 or more"),
        ("mrpc", True, ["--folds", "40"], "200 rows are too few for 40 folds"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    task: str, finished: bool, arguments: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run", task, finished)
    assert main(["calibrate", str(folder), *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert not (folder / "model/calibration.json").exists()


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"index\tprediction\n", b"\xff\xfe\x00", b"x" * 200_000])
def test_a_damaged_predictions_file_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "predictions/validation.tsv").write_bytes(content)
    assert main(["calibrate", str(folder)]) == 2
    assert "validation.tsv: cannot be used" in capsys.readouterr().err
