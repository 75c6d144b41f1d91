"""MRPC over seeds: ftsys on two ranks against the stock Trainer in one process, the same recipe. One record, one table.

    python benchmarks/mrpc_quality.py GLUE_DIR WORK_DIR --batch-size 32 --seeds 1 2 3 4 5

Both sides: all-MiniLM-L6-v2 weights, bf16, 3 epochs, learning rate 5e-5 falling linearly, the last step's weights. A
run that is there already in WORK_DIR is not repeated, so an interrupted sweep goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from ftsys.bench.record import DEFAULT_FOLDER, Measurement, write_record
from ftsys.data.model_folder import resolve_model_folder

HERE = Path(__file__).parent
RANKS = 2


def ours(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One training under the deepspeed launcher; metrics of its results.json."""
    folder = options.work / f"ftsys-{options.batch_size}-{seed}"
    overrides = {
        "output_dir": folder,
        "data.source": options.glue,
        "batch.global_size": options.batch_size,
        "train.seed": seed,
        "train.save_every": "never",
        "engine.precision": "bf16",
        "engine.backend": options.backend,
    }
    words = [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
    launcher = ["deepspeed", "--num_gpus", str(RANKS), "--module", "ftsys", "train"]
    if not (folder / "results.json").exists():
        environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        subprocess.run([*launcher, HERE.parent / "configs/runs/mrpc.toml", *words], check=True, env=environment)
    results = json.loads((folder / "results.json").read_text())
    found = results["metrics"]["validation"]
    return {"seed": seed, "accuracy": found["accuracy"], "f1": found["f1"], "train_s": results["timing"]["train_s"]}


def stock(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All seeds of the stock script, which appends a line for each."""
    out = options.work / f"stock-{options.batch_size}.jsonl"
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    left = [str(seed) for seed in options.seeds if seed not in [line["seed"] for line in done]]
    if left:
        model = resolve_model_folder("embedded")
        sizes = ["--batch-size", str(options.batch_size), "--cpu", "--out", out, "--seeds", *left]
        subprocess.run([sys.executable, HERE / "stock_mrpc.py", options.glue, model, *sizes], check=True)
        done = [json.loads(line) for line in out.read_text().splitlines()]
    keys = ("seed", "accuracy", "f1", "train_s")
    return [{key: line[key] for key in keys} for line in done if line["seed"] in options.seeds]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds."""
    found: dict[str, Any] = {}
    for name in ("accuracy", "f1", "train_s"):
        values = [run[name] for run in runs]
        found[name] = statistics.mean(values)
        found[f"{name}_stdev"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return found


def main() -> None:
    """Run what is missing, print the table, write benchmarks/results/mrpc-quality-BATCH-*.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glue", type=Path, help="a folder with GLUE's own files")
    parser.add_argument("work", type=Path, help="where runs lie")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--backend", default="deepspeed", choices=["deepspeed", "ddp"], help="ours; stock has none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    own = [ours(options, seed) for seed in options.seeds]
    runs: dict[str, list[dict[str, Any]]] = {f"ftsys, 2 ranks, {options.backend}": own, "stock Trainer": stock(options)}
    print(f"| MRPC validation, batch {options.batch_size}, {len(options.seeds)} seeds | accuracy | F1 | training, s |")
    print("|---|--:|--:|--:|")
    for name, found in runs.items():
        means = summary(found)
        cells = [f"{means[key]:.4f} ± {means[f'{key}_stdev']:.4f}" for key in ("accuracy", "f1")]
        print(f"| {name} | {' | '.join(cells)} | {means['train_s']:.0f} |")
    measured = {
        f"{name}: {key}": Measurement.of([run[key] for run in found], unit, higher_is_better=unit == "share")
        for name, found in runs.items()
        for key, unit in (("accuracy", "share"), ("f1", "share"), ("train_s", "s"))
    }
    means = {name: summary(found) for name, found in runs.items()}
    settings = {"batch_size": options.batch_size, "seeds": options.seeds, "runs": runs, "means": means}
    print(write_record(DEFAULT_FOLDER, f"mrpc-quality-{options.batch_size}", measured, {}, settings))


if __name__ == "__main__":
    main()
