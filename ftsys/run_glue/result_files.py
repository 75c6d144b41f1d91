"""The example script's result files, by its names and keys, and the model where the script leaves it."""

import csv
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftsys.files import atomic_open, atomic_write_text, json_safe, storage_errors
from ftsys.run_glue.results import Outcome
from ftsys.run_glue.translate import Asked
from ftsys.tasks import Task

_NO_METRIC = ("loss", "examples")


def write_stock_files(folder: Path, task: Task, outcome: Outcome, asked: Asked) -> None:
    """Write what was asked for: train_, eval_ and all_results.json, predict_results_TASK.txt, and the model's files.

    The same from the same outcome, however often. Raises StorageError.
    """
    everything: dict[str, Any] = {}
    if asked.train:
        everything |= _write_results(folder, "train", outcome.training)
        _link_model(folder)
    if asked.evaluate:
        everything |= _write_results(folder, "eval", evaluation_results(task, outcome))
    if everything:
        _write_json(folder / "all_results.json", everything)
    if asked.predict:
        for split, name in zip(task.test_splits, (asked.name, f"{asked.name}-mm"), strict=False):
            _write_predictions(folder, split, name, task.regression)


def evaluation_results(task: Task, outcome: Outcome) -> dict[str, float]:
    """The script's keys for all evaluation splits; those of the second, MNLI's mismatched one, end in _mm."""
    found: dict[str, float] = {}
    for split, ending in zip(task.evaluation_splits, ("", "_mm"), strict=False):
        if split in outcome.metrics:
            epoch = {"epoch": outcome.training["epoch"]} if "epoch" in outcome.training else {}
            values = _of_split(outcome.metrics[split], outcome.speed.get(split, {})) | epoch
            found |= {f"{name}{ending}": value for name, value in values.items()}
    return found


def _of_split(metrics: Mapping[str, float], speed: Mapping[str, float]) -> dict[str, float]:
    judged = {name: value for name, value in metrics.items() if name not in _NO_METRIC}
    if len(judged) > 1 and all(value is not None for value in judged.values()):
        judged["combined_score"] = sum(judged.values()) / len(judged)
    rest = {"loss": metrics["loss"]} if "loss" in metrics else {}
    return {
        f"eval_{name}": value for name, value in {**judged, **rest, "samples": metrics["examples"], **speed}.items()
    }


def _write_results(folder: Path, split: str, values: Mapping[str, float]) -> Mapping[str, float]:
    _write_json(folder / f"{split}_results.json", values)
    return values


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    atomic_write_text(path, json.dumps(json_safe(values), indent=4, sort_keys=True, allow_nan=False) + "\n")


def _write_predictions(folder: Path, split: str, name: str, regression: bool) -> None:
    """Index and prediction of each row: a class's name, or a number with three digits behind the point."""
    source = folder / "predictions" / f"{split}.tsv"
    with source.open(encoding="utf-8", newline="") as stream:
        rows = [(row["index"], row["prediction"]) for row in csv.DictReader(stream, delimiter="\t")]
    with atomic_open(folder / f"predict_results_{name}.txt") as stream:
        stream.write("index\tprediction\n")
        for index, prediction in rows:
            stream.write(f"{index}\t{float(prediction):.3f}\n" if regression else f"{index}\t{prediction}\n")


def _link_model(folder: Path) -> None:
    """The model's files in the output folder itself, too: the same bytes under a second name where that can be."""
    with storage_errors(folder):
        for source in sorted((folder / "model").iterdir()):
            partial, target = folder / f".{source.name}.partial", folder / source.name
            partial.unlink(missing_ok=True)
            try:
                os.link(source, partial)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, partial)
            partial.replace(target)
            partial.unlink(missing_ok=True)  # where both names are one file already, replacing does nothing
