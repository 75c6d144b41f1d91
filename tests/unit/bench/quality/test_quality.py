"""Tests the time to quality apart from trainings: figures, kept curves, the settings of each side."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from ftsys.bench.harness.inputs import Pairs, Split
from ftsys.bench.harness.output import Findings
from ftsys.bench.quality.bench import note_quality
from ftsys.bench.quality.runs import Kept, read_curve
from ftsys.bench.quality.sides import BEST, COURSE, OURS, Material, command_of, run_of
from ftsys.cli import main
from ftsys.tasks import GLUE
from tests.unit.bench.quality.test_curves import curve

METRICS = ("accuracy", "f1")


@pytest.fixture
def material(tmp_path: Path) -> Material:
    split = Split(["a"] * 320, ["b"] * 320, np.zeros(320, np.int64))
    pairs = Pairs(GLUE["mrpc"], "MRPC", {"train": split, "validation": split})
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation")}
    (tmp_path / "model").mkdir()
    config = {"hidden_dropout_prob": 0.1, "classifier_dropout": None, "hidden_size": 8, "num_hidden_layers": 1}
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"num_attention_heads": 1, "vocab_size": 9}))
    return Material(pairs, tmp_path / "texts", files, tmp_path / "model", "minilm", "bf16", evaluations=2)


def test_seconds_until_the_courses_mean() -> None:
    curves = {COURSE: [curve(0.6, 0.8, pace=4.0)], OURS: [curve(0.85, 0.9)], BEST: [curve(0.6, 0.7)]}
    found = Findings()
    note_quality(found, "MRPC", curves, None)
    title = "MRPC: from the command to the score 0.8000"
    assert found.ratios == {f"{title}: {OURS} / {COURSE}": 1 / 8}
    table = found.tables[title]
    assert (table[COURSE]["seconds"], table[OURS]["seconds"], table[OURS]["of the course's"]) == (8.0, 1.0, 1 / 8)
    assert table[BEST] == {"last score": 0.7, "error": 0.0}
    assert found.notes == [f"{BEST}: its mean over seeds has not reached 0.8000"]
    assert found.settings["curves"][OURS]["mean scores"] == [0.85, 0.9]


def test_a_second_table_is_for_the_target_less_its_standard_error() -> None:
    curves = {COURSE: [curve(0.6, 0.7), curve(0.6, 0.9)], OURS: [curve(0.7, 0.72), curve(0.7, 0.72)]}
    found = Findings()
    note_quality(found, "MRPC", curves, None)
    exact, near = found.tables.values()
    assert "seconds" not in exact[OURS]
    assert (near[OURS]["seconds"], found.settings["standard error of the target"]) == (1.0, pytest.approx(0.1))


def test_a_named_target_has_one_table() -> None:
    found = Findings()
    note_quality(found, "MRPC", {COURSE: [curve(0.6, 0.9), curve(0.6, 0.7)]}, 0.75)
    assert list(found.tables) == ["MRPC: from the command to the score 0.7500"]
    assert found.settings["target"] == 0.75


def test_lines_of_training_are_not_evaluations() -> None:
    lines = ['{"step": 10, "time": 101.0, "loss": 0.5}', '{"step": 20, "time": 103.5, "accuracy": 0.7, "f1": 0.8}']
    (found,) = read_curve(lines, METRICS, 100.0)
    assert (found.step, found.seconds, found.score) == (20, 3.5, pytest.approx(0.75))


def test_kept_curves_are_read_again_where_the_settings_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    Kept(path, {"recipe": "minilm"}).put(OURS, 1, curve(0.5, 0.6))
    Kept(path, {"recipe": "other"}).put(OURS, 2, curve(0.5, 0.6))
    again = Kept(path, {"recipe": "minilm"})
    assert again.get(OURS, 1) == curve(0.5, 0.6)
    assert again.get(OURS, 2) is None


def test_ours_trains_the_recipe_and_the_best_stock_recipe_has_its_values(material: Material, tmp_path: Path) -> None:
    command, lines = command_of(OURS, material, tmp_path, 3)
    written = tomllib.loads((tmp_path / "run.toml").read_text())
    assert command[1:5] == ["-P", "-m", "ftsys", "train"]
    assert lines == tmp_path / "run" / "metrics.jsonl"
    assert (written["recipe"], written["train"]["seed"], written["train"]["eval_every"]) == ("minilm", 3, 5)
    run = run_of(material, tmp_path, 3)
    command_of(BEST, material, tmp_path, 3)
    settings = json.loads((tmp_path / "settings.json").read_text())
    arguments = settings["arguments"]
    assert settings["dropouts"] == {"hidden_dropout_prob": run.train.dropout} == {"hidden_dropout_prob": 0.0}
    assert arguments["learning_rate"] == run.train.learning_rate == 2e-4
    assert arguments["per_device_train_batch_size"] == run.batch.global_size == 32
    assert (arguments["warmup_steps"], arguments["eval_steps"], arguments["bf16"]) == (0.2, 5, True)


def test_the_courses_side_has_the_courses_values(material: Material, tmp_path: Path) -> None:
    command_of(COURSE, material, tmp_path, 1)
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["arguments"] == {
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-5,
        "num_train_epochs": 3,
        "seed": 1,
        "eval_steps": 20,
    }
    assert (settings["metrics"], settings["dropouts"]) == (list(METRICS), {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peers", "ours"], "--peers lacks 'course'"),
        (["--peers", "course", "curse"], "--peers 'curse' is not a peer"),
        (["--target", "83"], "--target 83.0 is not between 0 and 1"),
        (["--evaluations", "0"], "--evaluations 0 gives no curve"),
    ],
)
def test_wrong_input_is_one_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "quality", *words]) == 2
    assert message in capsys.readouterr().err
