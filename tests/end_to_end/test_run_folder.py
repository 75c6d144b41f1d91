"""What one run leaves, that others can use it, and what a second start in the same folder does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.commands import RUN_FILE, environment, ftsys, losses, read_json, write_run_file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with run.toml and the finished run folder run/; the recipe of the start is gone."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = folder / "mine.toml"
    recipe.write_text("[train]\nlearning_rate = 5e-5\n")
    ended = ftsys("train", write_run_file(folder, model=tiny_model), "--recipe", "mine.toml", cwd=folder)
    recipe.unlink()
    assert ended.returncode == 0, ended.stderr
    assert "freshly initialised" in ended.stderr
    assert "Traceback" not in ended.stderr
    return folder


def test_the_run_folder_holds_what_the_contract_names(finished: Path) -> None:
    run = finished / "run"
    for name in ("config.toml", "plan.json", "env.json", "owner.json", "status.json", "metrics.jsonl", "results.json"):
        assert (run / name).is_file(), name
    results = read_json(run / "results.json")
    assert results["steps"] == 5
    assert results["seed"] == 42
    assert results["throughput"]["padding_fraction"] < 0.02
    assert results["data"] == "synthetic"
    energy = results["energy"]
    assert (energy["joules"] is None) == bool(energy["not_told"])
    assert set(results["metrics"]["validation"]) == {"accuracy", "f1", "loss", "examples"}
    assert len(losses(run)) == 5


def test_the_resolved_run_needs_no_recipe(finished: Path) -> None:
    from ftsys.config import load_run

    run = load_run(finished / "run/config.toml")
    assert (run.recipe, run.train.learning_rate) == (None, 5e-5)


def test_plain_transformers_loads_the_model_with_the_same_logits(finished: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    from ftsys.config import load_run, resolve_task
    from ftsys.data.sources.source import open_source

    run = load_run(finished / "run.toml")
    rows = next(open_source(run.data, resolve_task(run)).batches("validation", rows_per_batch=400))
    assert rows.second is not None
    folder = finished / "run/model"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(rows.first[:40], rows.second[:40], truncation=True, padding=True, return_tensors="pt")
    scores = model.eval()(**batch).logits.softmax(-1).detach().numpy()
    lines = (finished / "run/predictions/validation.tsv").read_text().splitlines()
    written = np.array([[float(cell) for cell in line.split("\t")[3:]] for line in lines[1:41]])
    np.testing.assert_allclose(scores, written, atol=1e-5)
    found = pipeline("text-classification", str(folder))({"text": rows.first[0], "text_pair": rows.second[0]})
    assert found["label"] == lines[1].split("\t")[1]


def test_a_run_without_fast_imports_has_the_same_losses(finished: Path, tmp_path: Path, tiny_model: Path) -> None:
    switches = {"FTSYS_FAST_IMPORT": "0", "PYTHONPROFILEIMPORTTIME": "1"}  # the latter lists imports on standard error
    ended = ftsys("train", write_run_file(tmp_path, model=tiny_model), cwd=tmp_path, **switches)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "import time" in ended.stderr
    assert any(line.split("|")[-1].strip() == "datasets" for line in ended.stderr.splitlines())
    assert losses(tmp_path / "run") == losses(finished / "run")


def test_evaluate_finds_the_same_metrics(finished: Path) -> None:
    ended = ftsys("evaluate", "run.toml", cwd=finished)
    assert ended.returncode == 0, ended.stderr
    accuracy = read_json(finished / "run/results.json")["metrics"]["validation"]["accuracy"]
    assert f"{accuracy:.4f}" in ended.stdout


def test_a_second_start_prints_the_table_and_changes_nothing(finished: Path) -> None:
    before = (finished / "run/results.json").read_bytes()
    ended = ftsys("train", "run.toml", cwd=finished)
    assert ended.returncode == 0
    assert "finished" in ended.stdout
    assert (finished / "run/results.json").read_bytes() == before


def test_a_second_start_mends_a_damaged_status(finished: Path) -> None:
    (finished / "run/status.json").write_text('{"state": "do')
    ended = ftsys("train", "run.toml", cwd=finished)
    assert ended.returncode == 0, ended.stderr
    status = read_json(finished / "run/status.json")
    assert (status["state"], status["exit"]) == ("done", 0)


def test_another_run_is_refused_with_77(finished: Path) -> None:
    ended = ftsys("train", "run.toml", "--train.seed", "7", cwd=finished)
    assert ended.returncode == 77
    assert "train.seed" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "mistake",
    [("--data.max_length", "1000"), ("--trainer.weight_decai", "0.1"), ("--batch.global_tokens", "9")],
)
def test_a_mistake_with_overwrite_removes_nothing(finished: Path, mistake: tuple[str, str]) -> None:
    before = sorted(path.relative_to(finished) for path in (finished / "run").rglob("*"))
    ended = ftsys("train", "run.toml", "--overwrite", *mistake, cwd=finished)
    assert ended.returncode == 2
    assert mistake[0].removeprefix("--") in ended.stderr
    assert sorted(path.relative_to(finished) for path in (finished / "run").rglob("*")) == before
    assert ftsys("train", "run.toml", cwd=finished).returncode == 0


def test_verify_finds_a_changed_byte(finished: Path) -> None:
    assert ftsys("verify", "run", cwd=finished).returncode == 0
    weights = next((finished / "run/checkpoints").glob("*/weights.safetensors"))
    original = weights.read_bytes()
    weights.write_bytes(original[:1000] + bytes([original[1000] ^ 1]) + original[1001:])
    ended = ftsys("verify", "run", cwd=finished)
    weights.write_bytes(original)
    assert ended.returncode == 2
    assert "weights.safetensors" in ended.stdout


def stopped(tmp_path: Path, run_file: Path, sign_of_life: str) -> str:
    """Start a training, send TERM once `sign_of_life` is in the run folder; it ends with 75. Returns what it said."""
    command = [sys.executable, "-m", "ftsys", "train", str(run_file)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / sign_of_life).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 75, said
    status = read_json(tmp_path / "run/status.json")
    assert (status["state"], status["exit"]) == ("stopped", 75)
    assert "Traceback" not in said
    return said


def test_a_signal_before_training_ends_with_75(tmp_path: Path, tiny_model: Path) -> None:
    said = stopped(tmp_path, write_run_file(tmp_path, model=tiny_model), "status.json")
    assert "stopped by SIGTERM" in said
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_signal_ends_with_75_and_the_same_command_goes_on(tmp_path: Path, minilm_folder: Path) -> None:
    """On the bundled model a step is slow enough to be hit."""
    text = RUN_FILE.replace("max_steps = 5", "max_steps = 12").replace(
        "[model]", "first_rows = {validation = 16}\n[model]"
    )
    run_file = write_run_file(tmp_path, text)
    stopped(tmp_path, run_file, "metrics.jsonl")
    again = ftsys("train", run_file, "--train.resume", "auto", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "resuming from" in again.stderr
    for checkpoint in (tmp_path / "run/checkpoints").iterdir():  # of the first attempt and of this one
        assert read_json(checkpoint / "plan.json")["plan"] == read_json(tmp_path / "run/plan.json")
    assert losses(tmp_path / "run")[0] == pytest.approx(0.69, abs=0.2)
    assert len(losses(tmp_path / "run")) == 12
    status = read_json(tmp_path / "run/status.json")
    assert (status["state"], status["exit"], status["step"]) == ("done", 0, 12)


def test_a_source_of_training_rows_alone_trains_without_evaluation(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "a good day,up\na bad day,down\n" * 8)
    task = '[task]\nname = "mood"\ncolumns = ["text"]\nlabels = ["down", "up"]\n'
    source = '[data]\nsource = {train = "train.csv"}\n[model]\nname = "bundled"\n[train]\nmax_steps = 2\n'
    ended = ftsys("train", write_run_file(tmp_path, task + source, tiny_model), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "no split but the training split has labels" in ended.stdout
    assert read_json(tmp_path / "run/results.json")["metrics"] == {}
