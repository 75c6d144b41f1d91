"""Trained models whose weights were changed since: renamed, cut off, or of another shape.

A row of CHANGES is a change and what has to be said about it. No command may answer with weights that loading made up.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftsys.calibrate.split_logits import split_logits
from ftsys.cli import main
from ftsys.errors import ConfigError
from ftsys.finished.run import open_finished
from ftsys.run_folder.layout import PREDICTIONS
from tests.field.conftest import write_own_run

Weights = dict[str, torch.Tensor]
NORM = "bert.encoder.layer.1.output.LayerNorm.weight"
TEXTS = "text\na cat\na dog\n"


def renamed(weights: Weights) -> None:
    weights["bert.encoder.layer.1.output.Norm.weight"] = weights.pop(NORM)


def without_head(weights: Weights) -> None:
    del weights["classifier.weight"], weights["classifier.bias"]


def head_of_seven(weights: Weights) -> None:
    weights["classifier.weight"] = torch.ones(7, 16)


def shorter(weights: Weights) -> None:
    weights[NORM] = torch.ones(8)


CHANGES: dict[str, tuple[Callable[[Weights], None], str]] = {
    "a LayerNorm of another name": (renamed, f"is not the one that was trained: its weights lack {NORM}. Copy"),
    "a LayerNorm of another width": (shorter, f"have another shape for {NORM} ((8,) instead of (16,)). Copy"),
    "no head": (without_head, "no trained classification head: its weights lack classifier.bias, classifier.weight."),
    "a head of another shape": (head_of_seven, "have another shape for classifier.weight ((7, 16) instead of (2, 16))"),
}


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train once; the run folder is "run" below the project folder that is returned, its run file beside it."""
    folder = tmp_path_factory.mktemp("finished")
    rows: dict[str, Sequence[object]] = {split: ["no", "yes"] * 6 for split in ("train", "validation")}
    write_own_run(folder, tiny_model, rows)
    assert main(["train", str(folder / "run.toml")]) == 0
    return folder


def changed(finished: Path, folder: Path, change: Callable[[Weights], None]) -> Path:
    """Return a copy of the run folder with changed weights."""
    shutil.copytree(finished / "run", folder / "run")
    file = folder / "run/model/model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})
    return folder / "run"


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_no_command_answers_with_weights_that_loading_made_up(
    change: Callable[[Weights], None], said: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = changed(finished, tmp_path, change)
    (tmp_path / "texts.csv").write_text(TEXTS)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with_run_file = [str(finished / "run.toml"), "--output_dir", str(run)]
    for words in (
        ["evaluate", *with_run_file],
        ["predict", *with_run_file],
        ["predict", str(run), str(tmp_path / "texts.csv"), "--output", str(tmp_path / "scores.csv")],
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_no_calibration_on_scores_of_weights_that_loading_made_up(
    change: Callable[[Weights], None], said: str, finished: Path, tmp_path: Path
) -> None:
    run = changed(finished, tmp_path, change)
    shutil.rmtree(run / PREDICTIONS)
    with pytest.raises(ConfigError) as refused:
        split_logits(open_finished(run), "validation")
    assert said in str(refused.value)


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_no_export_of_weights_that_loading_made_up(
    change: Callable[[Weights], None], said: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    run = changed(finished, tmp_path, change)
    assert main(["export", str(run), "--to", "onnx"]) == 2
    refused = capsys.readouterr().err
    if "needs transformers 5.23" in refused:
        pytest.skip(refused.strip())
    assert said in refused


def test_a_whole_model_answers_as_before(finished: Path) -> None:
    assert main(["evaluate", str(finished / "run.toml")]) == 0
