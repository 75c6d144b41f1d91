"""A run with several labels a row and weights: train, resume, evaluate, predict, report, bundle, and its head again."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.attempts import make_project
from tests.end_to_end.commands import call, ftsys, read_json

RUN_FILE = """
output_dir = "run"
[task]
name = "moods"
columns = ["text"]
multi_label = true
label_columns = ["joy", "anger", "fear"]
[data]
source = {train = "train.csv", validation = "train.csv", test = "test.csv"}
[model]
name = "model"
[batch]
global_size = 8
[train]
max_steps = 6
eval_every = 3
save_every = 3
class_weights = "balanced"
learning_rate = 1e-3
[engine]
precision = "fp32"
[trainer]
logging_steps = 1
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A folder with run.toml and the finished run folder run/."""
    folder = make_project(tmp_path_factory.mktemp("moods"), minilm_folder, RUN_FILE)
    words = [("good", "1,0,0"), ("bad", "0,1,0"), ("dark", "0,1,1"), ("plain", "0,0,0")] * 8
    (folder / "train.csv").write_text("text,joy,anger,fear\n" + "".join(f"a {w} day,{bits}\n" for w, bits in words))
    (folder / "test.csv").write_text("text\na good day\na bad day\n")
    ended = ftsys("train", "run.toml", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_the_model_is_transformers_own_with_the_same_scores(finished: Path) -> None:
    from transformers import pipeline

    config = read_json(finished / "run/model/config.json")
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {"0": "joy", "1": "anger", "2": "fear"}
    results = read_json(finished / "run/results.json")
    assert results["class_weights"] == {"joy": 3.0, "anger": 1.0, "fear": 3.0}
    metrics = {"micro_f1", "macro_f1", "subset_accuracy", "average_precision"}
    assert set(results["metrics"]["validation"]) == metrics | {"loss", "examples"}
    assert results["metrics"]["test"] == {"examples": 2}
    row = rows_of(finished / "run/predictions/test.tsv")[0]
    found = pipeline("text-classification", str(finished / "run/model"))("a good day", top_k=None)
    for each in found:
        assert each["score"] == pytest.approx(float(row[f"score_{each['label']}"]), abs=1e-4)
    assert row["label"] == ""
    assert {each["label"] for each in rows_of(finished / "run/predictions/validation.tsv")} >= {"[]", "anger;fear"}


def test_a_resumed_run_ends_with_the_same_model(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    for left in ("results.json", "model", "predictions"):
        path = again / "run" / left
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(again / "run/checkpoints/step-00000006", ignore_errors=True)
    left_over = [path.name for path in (again / "run/checkpoints").iterdir()]
    assert len(left_over) == 1, left_over
    ended = ftsys("train", "run.toml", cwd=again)
    assert ended.returncode == 0, ended.stderr
    assert "4/6 steps" in ended.stderr or "resum" in ended.stderr, ended.stderr
    model = "run/model/model.safetensors"
    assert (again / model).read_bytes() == (finished / model).read_bytes()


def test_other_commands_take_the_run(finished: Path, tmp_path: Path) -> None:
    evaluated = ftsys("evaluate", "run.toml", cwd=finished)
    assert (evaluated.returncode, "subset accuracy" in evaluated.stdout) == (0, True), evaluated.stderr
    predicted = ftsys("predict", "run.toml", "--output", tmp_path, cwd=finished)
    assert predicted.returncode == 0, predicted.stderr
    ours, former = (rows_of(folder / "predictions/validation.tsv") for folder in (tmp_path, finished / "run"))
    assert [row["prediction"] for row in ours] == [row["prediction"] for row in former]
    scores = [[float(row["score_fear"]) for row in rows] for rows in (ours, former)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    reported = ftsys("report", "run", cwd=finished)
    assert (reported.returncode, "micro f1" in reported.stdout) == (0, True), reported.stderr
    other = ftsys("evaluate", "run.toml", "--task.multi_label", "false", cwd=finished)
    assert (other.returncode, "write multi_label = true" in other.stderr) == (2, True)


def test_a_bundle_keeps_the_kind_of_labels(finished: Path, tmp_path: Path) -> None:
    made = call("ftlaunch", "bundle", "run.toml", "--output", tmp_path / "bundle", cwd=finished)
    assert made.returncode == 0, made.stderr
    ended = ftsys("prepare", tmp_path / "bundle/run.toml", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    asked = read_json(tmp_path / "bundle/bundle.json")["asked"]
    assert (asked["task.multi_label"], asked["task.label_columns"]) == (True, ["joy", "anger", "fear"])


def test_its_head_is_used_again_by_the_names_of_the_labels(finished: Path) -> None:
    from ftsys.tasks import Task
    from ftsys.train.setup import load_model

    other = Task("moods", ("text",), ("fear", "joy", "anger"), ("micro_f1",), multi_label=True)
    model, fresh = load_model(finished / "run/model", other, seed=1)
    trained, _ = load_model(finished / "run/model", other, seed=1, head="keep")
    assert fresh == []
    assert model.classifier.weight.tolist() == trained.classifier.weight[[2, 0, 1]].tolist()
    assert model.config.id2label == {0: "fear", 1: "joy", 2: "anger"}
