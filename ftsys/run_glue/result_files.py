"""Writes the example script's result files, with its names and keys, and puts the model where the script puts it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftsys.files.atomic import atomic_copy, atomic_open, atomic_write_text
from ftsys.files.folders import sync_folder
from ftsys.files.json_safe import json_safe
from ftsys.files.storage_errors import storage_errors
from ftsys.model_files.calibration import CALIBRATION
from ftsys.run_folder.layout import MODEL, predictions_file
from ftsys.run_folder.predictions import read_predictions
from ftsys.run_glue.results import RunResults
from ftsys.run_glue.translate import Request
from ftsys.tasks import Task

_NO_METRIC = ("loss", "examples")


def write_result_files(folder: Path, task: Task, results: RunResults, request: Request) -> None:
    """Write the requested files: train_, eval_ and all_results.json, predict_results_TASK.txt, and the model's files.

    A second call with the same results writes the same bytes. Raises StorageError.
    """
    everything: dict[str, Any] = {}
    if request.train:
        everything |= _write_results(folder, "train", results.training)
        _link_model(folder)
    if request.evaluate:
        everything |= _write_results(folder, "eval", evaluation_results(task, results))
    if everything:
        _write_json(folder / "all_results.json", everything)
    if request.predict:
        for split, name in zip(task.test_splits, (request.name, f"{request.name}-mm"), strict=False):
            _write_predictions(folder, split, name, task.regression)


def evaluation_results(task: Task, results: RunResults) -> dict[str, float]:
    """Return metrics of all evaluation splits by the script's keys; keys of MNLI's mismatched split end in _mm."""
    found: dict[str, float] = {}
    for split, ending in zip(task.evaluation_splits, ("", "_mm"), strict=False):
        if split in results.metrics:
            epoch = {"epoch": results.training["epoch"]} if "epoch" in results.training else {}
            values = _of_split(results.metrics[split], results.speed.get(split, {})) | epoch
            found |= {f"{name}{ending}": value for name, value in values.items()}
    return found


def _of_split(metrics: Mapping[str, float], speed: Mapping[str, float]) -> dict[str, float]:
    scores = {name: value for name, value in metrics.items() if name not in _NO_METRIC}
    if len(scores) > 1 and all(value is not None for value in scores.values()):
        scores["combined_score"] = sum(scores.values()) / len(scores)
    rest = {"loss": metrics["loss"]} if "loss" in metrics else {}
    return {
        f"eval_{name}": value for name, value in {**scores, **rest, "samples": metrics["examples"], **speed}.items()
    }


def _write_results(folder: Path, split: str, values: Mapping[str, float]) -> Mapping[str, float]:
    _write_json(folder / f"{split}_results.json", values)
    return values


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    atomic_write_text(path, json.dumps(json_safe(values), indent=4, sort_keys=True, allow_nan=False) + "\n")


def _write_predictions(folder: Path, split: str, name: str, regression: bool) -> None:
    """Write index and prediction of each row: a class name, or a number with three decimals (nan where none is)."""
    rows = read_predictions(predictions_file(folder, split))
    with atomic_open(folder / f"predict_results_{name}.txt") as stream:
        stream.write("index\tprediction\n")
        for index, prediction in rows:
            stream.write(f"{index}\t{float(prediction or 'nan'):.3f}\n" if regression else f"{index}\t{prediction}\n")


def _link_model(folder: Path) -> None:
    """Put the model's files into the output folder itself too, as hard links or, where links are impossible, copies.

    A calibration is not: one that is made later would not reach the copy.
    """
    with storage_errors(folder):
        (folder / CALIBRATION).unlink(missing_ok=True)  # of a former model, where it was copied once
        for source in sorted(path for path in (folder / MODEL).iterdir() if path.name != CALIBRATION):
            partial, target = folder / f".{source.name}.partial", folder / source.name
            partial.unlink(missing_ok=True)
            try:
                os.link(source, partial)
            except OSError:  # a file system without hard links
                atomic_copy(source, target)
                continue
            partial.replace(target)
            partial.unlink(missing_ok=True)  # if both names are one file already, `replace` does nothing
        sync_folder(folder)
