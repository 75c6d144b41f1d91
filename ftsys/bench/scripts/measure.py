"""Times each shape of script with both Trainers, in turns in one process: a block is one call of `train`."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers.trainer_callback import PrinterCallback

from ftsys.bench.harness.measuring import Case, each_case
from ftsys.bench.harness.output import Findings, bench_parser, conclude, parse
from ftsys.bench.harness.record import Measurement, interleaved
from ftsys.bench.scripts.shapes import SHAPES, Material, Shape
from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.train.trainer.arguments import TrainingArguments
from ftsys.train.trainer.trainer import Trainer

STOCK, OURS = "stock", "ours"
SIDES: dict[str, tuple[Any, Any]] = {
    STOCK: (transformers.Trainer, transformers.TrainingArguments),
    OURS: (Trainer, TrainingArguments),
}
BATCH = 16


def bench_scripts(models: Sequence[str], shapes: Sequence[str], repeats: int, steps: int) -> Findings:
    """Measure `repeats` blocks of `steps` optimizer steps, of each shape with each Trainer.

    Raises ConfigError for an unknown shape.
    """
    wrong = [name for name in shapes if name not in SHAPES]
    ConfigError.raise_if(f"--scripts {name!r} is not known: {did_you_mean(name, SHAPES)}." for name in wrong)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("ftsys").setLevel(logging.ERROR)
    found = Findings(
        settings={"steps of a block": steps, "repeats": repeats, "warm_up": 1, "batch": BATCH}, plots=False
    )
    for case in each_case(models, BATCH * steps):
        material = _material(case)
        lengths = [len(row) for row in material.rows["input_ids"]]
        found.settings[f"{case.name}: tokens of a row, mean"] = sum(lengths) / len(lengths)
        found.tables[f"{case.name}: speed against stock"] = {
            name: _measured(found, case, name, material, repeats, steps) for name in shapes
        }
    return found


def _material(case: Case) -> Material:
    import datasets

    tokenizer = transformers.AutoTokenizer.from_pretrained(case.folder, trust_remote_code=False)
    rows = datasets.load_from_disk(str(case.inputs.stock))["train"].rename_column("label", "labels")
    texts = [name for name in rows.column_names if name not in (*tokenizer.model_input_names, "labels")]
    return Material(case.folder, rows.remove_columns(texts), tokenizer)


def _measured(found: Findings, case: Case, name: str, material: Material, repeats: int, steps: int) -> dict[str, float]:
    """Measure one shape; returns its row of the table."""
    trainers = {side: trainer_of(side, SHAPES[name], material, case.work / "scripts", steps) for side in SIDES}
    times = interleaved({side: trainer.train for side, trainer in trainers.items()}, repeats)
    for side, seconds in times.items():
        found.measurements[f"{case.name}, {name}, {side}: step"] = Measurement.of([s / steps for s in seconds], "s")
    over = [stock / ours for stock, ours in zip(times[STOCK], times[OURS], strict=True)]
    ratio = found.ratio(f"{case.name}, {name}: speed of ours / stock", over)
    return {"speed": ratio.median, "spread": ratio.spread}


def trainer_of(side: str, shape: Shape, material: Material, folder: Path, steps: int) -> Any:
    """Return the Trainer of one side, which trains `steps` optimizer steps with each call of `train`."""
    trainer_class, arguments_class = SIDES[side]
    settings: dict[str, Any] = {
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    arguments = arguments_class(output_dir=str(folder / side), **(settings | shape.settings))
    options = shape.options(material)
    given = {
        "train_dataset": material.rows,
        "data_collator": transformers.DataCollatorWithPadding(material.tokenizer),
        **({} if "model" in options else {"model": material.model()}),
    }
    trainer = shape.subclass(trainer_class)(args=arguments, **(given | options))
    trainer.remove_callback(PrinterCallback)
    return trainer


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench scripts`: measure, print, write the record."""
    parser = bench_parser("scripts", "Measure scripts of many shapes with the stock Trainer and ours.", 5, ("minilm",))
    shapes = f"some of {', '.join(map(repr, SHAPES))} (default: all)"
    parser.add_argument("--scripts", nargs="+", default=list(SHAPES), metavar="SCRIPT", help=shapes)
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps per block (default 8)")
    options = parse(parser, words)
    steps = 2 if options.quick else options.steps
    conclude(options.name, bench_scripts(options.models, options.scripts, options.repeats, steps), options.output)
    return 0
