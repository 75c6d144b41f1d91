"""Lists the sides, each a way to train to the end, and gives the command of each for a seed."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftsys.bench.harness.inputs import MAX_LENGTH, Pairs
from ftsys.config import RunConfig, build_run, dump_tree
from ftsys.console.child_python import python_command
from ftsys.model_files.config import model_config
from ftsys.model_files.values import dropouts

SCRIPT = Path(__file__).with_name("stock_script.py")
COURSE, BEST, OURS = "course", "best", "ours"
SIDES = {
    COURSE: "stock Trainer, the course's recipe: fp32, batch 8, rate 5e-5, 3 epochs, random order",
    BEST: "stock Trainer with ours' recipe less layer decay, length-grouped, in the faster one of bf16 and fp32",
    OURS: "ftsys train with the recipe that --recipe names",
}
LINES = "lines.jsonl"


@dataclass(frozen=True)
class Material:
    """Holds what all sides train on: pairs, their texts as `datasets` saved them and as JSONL files, model, recipe."""

    pairs: Pairs
    texts: Path
    files: dict[str, str]
    model: Path
    recipe: str
    stock_precision: str
    """Number format of the best stock recipe."""
    evaluations: int
    """Evaluations of an epoch."""
    most_steps: int | None = None
    """Steps after which a training ends; None: as its recipe says."""

    def warming_up(self) -> "Material":
        """Return the same, for a training of one step that fills caches."""
        return replace(self, most_steps=1)


def run_of(material: Material, folder: Path, seed: int) -> RunConfig:
    """Return the run of ours. Its store is new, so the tokenizing counts as it does in the stock script."""
    return build_run(_tree(material, folder, seed))


def command_of(side: str, material: Material, folder: Path, seed: int) -> tuple[list[str], Path]:
    """Write what a side needs for a seed into `folder`; returns its command, and the file with its evaluations."""
    if side == OURS:
        run_file, tree = folder / "run.toml", _tree(material, folder, seed)
        run_file.write_text(dump_tree(tree), encoding="utf-8")
        return python_command("-m", "ftsys", "train", str(run_file), "--no-table"), folder / "run" / "metrics.jsonl"
    settings = _stock_settings(side, material, folder, seed)
    path = folder / "settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    # Its -P keeps the script's folder out of sys.path: some modules there have the names of other packages.
    return python_command(str(SCRIPT), str(path)), folder / LINES


def _tree(material: Material, folder: Path, seed: int) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "output_dir": str(folder / "run"),
        "recipe": material.recipe,
        "task": {"name": material.pairs.task.name},
        "data": {"source": material.files, "max_length": MAX_LENGTH, "store": str(folder / "stores")},
        "model": {"name": str(material.model)},
        "train": {"seed": seed, "save_every": "never"},
    }
    batch = build_run(tree).batch.global_size
    assert batch is not None
    tree["train"]["eval_every"] = _interval(material, batch)
    if material.most_steps:
        tree["train"] |= {"max_steps": material.most_steps}
    return tree


def _stock_settings(side: str, material: Material, folder: Path, seed: int) -> dict[str, Any]:
    arguments = _course_arguments() if side == COURSE else _best_arguments(material, folder, seed)
    arguments |= {"seed": seed, "eval_steps": _interval(material, arguments["per_device_train_batch_size"])}
    if material.most_steps:
        arguments["max_steps"] = material.most_steps
    return {
        "data": str(material.texts),
        "model": str(material.model),
        "lines": str(folder / LINES),
        "work": str(folder / "run"),
        "max_length": MAX_LENGTH,
        "metrics": material.pairs.task.metrics,
        "arguments": arguments,
        "dropouts": {} if side == COURSE else _dropouts(material, folder, seed),
    }


def _course_arguments() -> dict[str, Any]:
    return {"per_device_train_batch_size": 8, "learning_rate": 5e-5, "num_train_epochs": 3}


def _best_arguments(material: Material, folder: Path, seed: int) -> dict[str, Any]:
    run = run_of(material, folder, seed)
    return {
        "per_device_train_batch_size": run.batch.global_size,
        "per_device_eval_batch_size": 32,
        "learning_rate": run.train.learning_rate,
        "num_train_epochs": run.train.epochs or 1.0,
        "max_steps": run.train.max_steps or -1,
        **run.trainer,
        "train_sampling_strategy": "group_by_length",
        "bf16": material.stock_precision == "bf16",
    }


def _dropouts(material: Material, folder: Path, seed: int) -> dict[str, float]:
    """Return the values of config.json that give the stock model the dropout of ours' recipe."""
    dropout = run_of(material, folder, seed).train.dropout
    return {} if dropout is None else dropouts(model_config(material.model), dropout)


def _interval(material: Material, batch: int) -> int:
    """Return the steps between two evaluations."""
    steps = -(-material.pairs.rows("train") // batch)
    return max(1, -(-steps // material.evaluations))
