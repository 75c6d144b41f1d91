"""What a finished run leaves: results.json, predictions, the GLUE server's submissions, env.json and a model card.

Shapes: N rows of a split, C classes.
"""

import contextlib
import csv
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftsys import __version__
from ftsys.files import atomic_open, atomic_write_json
from ftsys.tasks import Task

RESULT_KEYS = (
    "task",
    "model",
    "metrics",
    "world_size",
    "zero_stage",
    "backend",
    "precision",
    "kernels",
    "global_batch",
    "steps",
    "epochs",
    "seed",
    "throughput",
    "timing",
    "versions",
    "commit",
)
"""What results.json holds, always; `attempt` and anything else a run has to tell come after them."""

THROUGHPUT_KEYS = ("real_tokens_per_s", "samples_per_s", "padding_fraction", "useful_tflops", "mfu")
TIMING_KEYS = ("startup_s", "prepare_s", "train_s", "eval_s", "total_s")

SUBMISSIONS: Mapping[tuple[str, str], str] = {
    ("cola", "test"): "CoLA.tsv",
    ("sst2", "test"): "SST-2.tsv",
    ("mrpc", "test"): "MRPC.tsv",
    ("stsb", "test"): "STS-B.tsv",
    ("qqp", "test"): "QQP.tsv",
    ("mnli", "test_matched"): "MNLI-m.tsv",
    ("mnli", "test_mismatched"): "MNLI-mm.tsv",
    ("qnli", "test"): "QNLI.tsv",
    ("rte", "test"): "RTE.tsv",
    ("wnli", "test"): "WNLI.tsv",
    ("ax", "test"): "AX.tsv",
}
"""The file that the GLUE server wants for a task's split."""

_NAMED_LABELS = ("mnli", "qnli", "rte", "ax")
"""Tasks whose submissions hold label names; the others hold numbers."""

_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
    "scipy",
    "pyarrow",
    "triton",
)
_ENVIRONMENT = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_JOB_NODELIST")


def write_results(output_dir: Path | str, results: Mapping[str, Any], attempt: int) -> None:
    """Write results.json, whole and last: its presence says that the run is finished.

    Raises ValueError for a key of the contract that is missing, and StorageError.
    """
    missing = [key for key in RESULT_KEYS if key not in results]
    for section, keys in (("throughput", THROUGHPUT_KEYS), ("timing", TIMING_KEYS)):
        missing += [f"{section}.{key}" for key in keys if key not in results.get(section, ())]
    if missing:
        raise ValueError(f"results lack {', '.join(missing)}")
    ordered = {key: results[key] for key in RESULT_KEYS} | dict(results) | {"attempt": attempt}
    atomic_write_json(Path(output_dir) / "results.json", ordered)


def scores_from_logits(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) float64 of logits (N, C): what transformers' text-classification pipeline calls scores."""
    logits_NC = np.asarray(logits, dtype=np.float64)
    weights_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    scores_NC: npt.NDArray[np.float64] = weights_NC / weights_NC.sum(axis=1, keepdims=True)
    return scores_NC


def write_predictions(
    path: Path | str,
    indexes: npt.ArrayLike,
    predictions: npt.ArrayLike,
    labels: npt.ArrayLike | None,
    scores: npt.ArrayLike | None,
    task: Task,
) -> None:
    """Write a TSV of index, prediction, label and a score for each class, in data set order.

    `indexes` int64 (N,) in any order, each once; `predictions` class ids (N,), or numbers for regression; `labels` as
    the predictions, -1 or NaN (or None for all) where unknown, which leaves the cell empty; `scores` (N, C), None for
    regression. Classes are written by name. Raises ValueError for an index given twice or lengths that differ, and
    StorageError.
    """
    rows = _ordered(indexes)
    columns = [np.asarray(indexes)[rows].tolist(), _cells(predictions, rows, task)]
    columns.append([""] * len(rows) if labels is None else _cells(labels, rows, task))
    names: Sequence[str] = task.labels if scores is not None else ()
    if scores is not None:
        columns += [[f"{score:.6g}" for score in column[rows].tolist()] for column in np.asarray(scores).T]
    header = ["index", "prediction", "label", *(f"score_{name}" for name in names)]
    if len(columns) != len(header):
        raise ValueError(f"{len(columns) - 3} scores a row for the {len(names)} classes of {task.name!r}")
    _write_tsv(path, header, columns)


def write_submission(
    output_dir: Path | str, task: Task, split: str, indexes: npt.ArrayLike, predictions: npt.ArrayLike
) -> Path | None:
    """Write submission/TASK.tsv as the GLUE server wants it; returns its path, or None if the server has no such file.

    `indexes` must be 0 to N-1 in any order: ValueError otherwise, for gaps are judged as wrong answers.
    STS-B's scores are clipped to 0..5. Raises StorageError.
    """
    name = SUBMISSIONS.get((task.name, split))
    if name is None:
        return None
    rows = _ordered(indexes)
    if not np.array_equal(np.asarray(indexes)[rows], np.arange(len(rows))):
        raise ValueError(f"a submission for {task.name!r} needs every row of {split!r}, and indexes have gaps")
    values_N = np.asarray(predictions)[rows]
    if task.regression:
        cells = [f"{value:.3f}" for value in np.clip(values_N, 0.0, 5.0).tolist()]
    elif task.name in _NAMED_LABELS:
        cells = [task.labels[value] for value in values_N.tolist()]
    else:
        cells = [str(value) for value in values_N.tolist()]
    path = Path(output_dir) / "submission" / name
    _write_tsv(path, ["index", "prediction"], [range(len(rows)), cells])
    return path


def environment() -> dict[str, Any]:
    """What env.json holds: where, with what and how this process runs. Looks at torch only if it is loaded already."""
    return {
        "versions": versions(),
        "commit": commit(),
        "command": sys.argv,
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpu_names(),
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results or speed, as far as they are installed."""
    found = {"python": platform.python_version(), "ftsys": __version__}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # not installed: there is no version to tell
            found[name] = metadata.version(name)
    return found


def commit() -> str | None:
    """The commit this code lies at, with "+" after it if files differ from it; None without a checkout or git."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        owned = _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "") if owned else None
    except (OSError, subprocess.SubprocessError):
        return None  # a wheel, or a machine without git: there is no commit to tell


def model_card(results: Mapping[str, Any], *, synthetic: bool = False) -> str:
    """README.md of the model folder: what it is, what it was made from, how well it does, how to use it."""
    note = (
        "\n**The training data is synthetic**: sentence pairs generated from a grammar. The model shows that the "
        "software works; it is not meant for use.\n"
        if synthetic
        else ""
    )
    table = [
        f"| {split} | {name} | {_cell(value)} |"
        for split, found in results["metrics"].items()
        for name, value in found.items()
        if name != "examples"
    ]
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [ftsys]
---

# {Path(str(results["model"])).name} fine-tuned on {results["task"]}
{note}
| split | metric | value |
|---|---|--:|
{chr(10).join(table)}

Made by ftsys from `{results["model"]}`: {results["epochs"]:g} epochs, {results["steps"]} steps of
{results["global_batch"]} examples, {results["precision"]}, seed {results["seed"]}.

```python
from transformers import pipeline

classify = pipeline("text-classification", "PATH_OF_THIS_FOLDER")
```
"""


def _ordered(indexes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Positions that bring `indexes` into ascending order. ValueError if one comes twice."""
    indexes_N = np.asarray(indexes)
    order_N: npt.NDArray[np.int64] = np.argsort(indexes_N, kind="stable")
    if len(indexes_N) and (np.diff(indexes_N[order_N]) == 0).any():
        raise ValueError("an index comes twice among the predictions")
    return order_N


def _cells(values: npt.ArrayLike, rows: npt.NDArray[np.int64], task: Task) -> list[str]:
    """Class names, or numbers that read back as the same float64; empty where unknown."""
    values_N = np.asarray(values)
    if values_N.shape != rows.shape:
        raise ValueError(f"{values_N.shape} values for {rows.shape} indexes")
    if task.regression:
        return ["" if value != value else repr(float(value)) for value in values_N[rows].tolist()]
    return [task.labels[value] if value >= 0 else "" for value in values_N[rows].tolist()]


def _write_tsv(path: Path | str, header: Sequence[str], columns: Sequence[Sequence[object]]) -> None:
    with atomic_open(path) as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "null" if value is None else str(value)
