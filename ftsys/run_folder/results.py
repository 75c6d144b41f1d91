"""What a finished run leaves: results.json, predictions, the GLUE server's submissions, env.json and a model card.

Shapes: N rows of a split, C classes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftsys.files import atomic_write_json

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


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "null" if value is None else str(value)
