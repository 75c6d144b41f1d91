"""A GLUE task over seeds: ftsys, in both orders of examples, against the stock Trainer, the same recipe. One record.

    python benchmarks/glue_quality.py rte GLUE_DIR WORK_DIR --seeds 1 2 3 4 5

All sides: one process, all-MiniLM-L6-v2 weights, bf16, 3 epochs, learning rate 5e-5 falling linearly, the last step's
weights. The stock Trainer has its best recipe, batches grouped by length. A run that is there already in WORK_DIR is
not repeated, so an interrupted sweep goes on, and `--sides` may be worked beside each other; a call with two of them or
all makes the record.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from ftsys.bench.harness.record import DEFAULT_FOLDER, Measurement, write_record
from ftsys.model_files.folder import resolve_model_folder
from ftsys.tasks import GLUE

HERE = Path(__file__).parent
SIDES = ("random", "length_grouped", "stock")
Run = dict[str, Any]


def ours(options: argparse.Namespace, order: str, seed: int) -> Run:
    """One training by `ftsys train`; metrics of its results.json."""
    folder = options.work / f"{options.task}-{options.batch_size}-{order}-{seed}"
    overrides = {
        "output_dir": folder,
        "task.name": options.task,
        "data.source": options.glue,
        "batch.global_size": options.batch_size,
        "batch.order": order,
        "train.seed": seed,
        "train.learning_rate": 5e-5,  # that of the stock script, whatever the run file's recipe is
        "trainer.warmup_steps": 0,
        "train.eval_every": "never",
        "train.save_every": "never",
        "engine.precision": "bf16",
    }
    words = [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
    if not (folder / "results.json").exists():
        command = [sys.executable, "-m", "ftsys", "train", str(HERE.parent / "configs/runs/mrpc.toml"), *words]
        subprocess.run(command, check=True, env=os.environ | {"DS_ACCELERATOR": "cpu"})
    results = json.loads((folder / "results.json").read_text())
    found = results["metrics"]["validation"]
    metrics = {name: found[name] for name in GLUE[options.task].metrics}
    return {"seed": seed, "metrics": metrics, "train_s": results["timing"]["train_s"]}


def stock(options: argparse.Namespace) -> list[Run]:
    """All seeds of the stock script, which appends a line for each."""
    out = options.work / f"stock-{options.task}-{options.batch_size}.jsonl"
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    left = [str(seed) for seed in options.seeds if seed not in [line["seed"] for line in lines]]
    if left:
        data = [options.task, options.glue, resolve_model_folder("bundled")]
        sizes = ["--batch-size", str(options.batch_size), "--order", "group_by_length", "--seeds", *left]
        command = [sys.executable, HERE / "stock_glue.py", *data, "--cpu", "--out", out, *sizes]
        subprocess.run(command, check=True)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
    keys = ("seed", "metrics", "train_s")
    return [{key: line[key] for key in keys} for line in lines if line["seed"] in options.seeds]


def runs_of(options: argparse.Namespace, side: str) -> list[Run]:
    """A side's run for each seed."""
    return stock(options) if side == "stock" else [ours(options, side, seed) for seed in options.seeds]


def measurements(runs: dict[str, list[Run]]) -> dict[str, Measurement]:
    """Every metric of every side over seeds, and its seconds of training."""
    found = {}
    for side, of_side in runs.items():
        for name in of_side[0]["metrics"]:
            found[f"{side}: {name}"] = Measurement.of(
                [run["metrics"][name] for run in of_side], "share", higher_is_better=True
            )
        seconds = [run["train_s"] for run in of_side]
        found[f"{side}: train_s"] = Measurement.of(seconds, "s")
    return found


def cell(of_side: list[Run], name: str) -> str:
    """Mean and sample standard deviation over seeds."""
    values = [run["metrics"][name] for run in of_side]
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.4f}"


def main() -> None:
    """Run what is missing, print the table, write benchmarks/results/TASK-quality-BATCH-*.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["mrpc", "rte", "cola", "stsb"])
    parser.add_argument("glue", type=Path, help="a folder with GLUE's own files")
    parser.add_argument("work", type=Path, help="where runs lie")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    runs = {side: runs_of(options, side) for side in options.sides}
    names = GLUE[options.task].metrics
    print(
        f"| {options.task} validation, batch {options.batch_size}, {len(options.seeds)} seeds | {' | '.join(names)} |"
    )
    print("|---|" + "--:|" * len(names))
    for side, of_side in runs.items():
        print(f"| {side} | {' | '.join(cell(of_side, name) for name in names)} |")
    if len(runs) > 1:
        settings = {"batch_size": options.batch_size, "seeds": options.seeds, "runs": runs}
        name = f"{options.task}-quality-{options.batch_size}"
        print(write_record(DEFAULT_FOLDER, name, measurements(runs), {}, settings))


if __name__ == "__main__":
    main()
