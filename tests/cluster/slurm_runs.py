"""Writes and reads runs that cost almost nothing, for the tests of SLURM jobs: a tiny model on a few rows."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.end_to_end.commands import call, read_json

SHORT = ["--train.max_steps", "4", "--train.eval_every", "4", "--batch.global_size", "8", "--engine.precision", "fp32"]
SHORT += ["--trainer.logging_steps", "1"]
"""Overrides that reduce a documented run to a few steps and one evaluation."""

STEPS = 200
"""Enough steps to interrupt a run in between; it takes seconds."""

RUN = """output_dir = "run"
[task]
name = "parity"
columns = ["text"]
labels = ["even", "odd"]
[data]
source = {{ train = "{folder}/rows.csv", validation = "{folder}/rows.csv" }}
[model]
name = "{model}"
[batch]
global_size = 8
[train]
max_steps = {steps}
eval_every = {steps}
save_every = 40
[engine]
precision = "fp32"
[trainer]
logging_steps = 1
"""


def make_tiny_model(folder: Path, minilm: Path) -> Path:
    """Make a BERT of one narrow layer with the tokenizer of a real one."""
    from transformers import BertConfig, BertModel

    shutil.copytree(minilm, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx", "onnx"))
    known = read_json(folder / "config.json")
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**known | small)).save_pretrained(folder)
    return folder


def write_run(folder: Path, model: Path, steps: int = STEPS, name: str = "run.toml") -> Path:
    """Write a run file and the rows that it reads."""
    rows = [f"the number {number} and nothing more,{'odd' if number % 2 else 'even'}" for number in range(64)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    path = folder / name
    path.write_text(RUN.format(folder=folder, model=model, steps=steps))
    return path


def results(run_folder: Path) -> dict[str, Any]:
    """Return results.json of the run."""
    found: dict[str, Any] = read_json(run_folder / "results.json")
    return found


def last_step(run_folder: Path) -> int:
    """Return the newest step in metrics.jsonl, 0 before the first."""
    path = run_folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def weights(run_folder: Path) -> str:
    """Return a hash of the trained model's weights."""
    return hashlib.sha256((run_folder / "model/model.safetensors").read_bytes()).hexdigest()


def undisturbed(folder: Path, model: Path) -> str:
    """Run the tiny run on two local ranks; returns a hash of its weights."""
    run_file = write_run(folder, model)
    local = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--module", "ftsys", "train"]
    done = call(*local, run_file, cwd=folder)
    assert done.returncode == 0, done.stderr
    return weights(folder / "run")
