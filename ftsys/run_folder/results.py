"""Writes and reads results.json, and writes the model card of a finished run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from ftsys.errors import RunFolderError
from ftsys.files import atomic_write_json
from ftsys.run_folder.layout import RESULTS
from ftsys.untrusted import json_object, typed

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
"""The keys that results.json always has; `attempt` and all other keys follow them."""

THROUGHPUT_KEYS = ("real_tokens_per_s", "samples_per_s", "padding_fraction", "useful_tflops", "mfu")
TIMING_KEYS = ("startup_s", "prepare_s", "train_s", "eval_s", "total_s")


def write_results(output_dir: Path | str, results: Mapping[str, Any], attempt: int) -> None:
    """Write results.json atomically. Call it last: the presence of the file means that the run is finished.

    Raises ValueError for a missing key (see RESULT_KEYS, THROUGHPUT_KEYS and TIMING_KEYS), and StorageError.
    """
    missing = [key for key in RESULT_KEYS if key not in results]
    for section, keys in (("throughput", THROUGHPUT_KEYS), ("timing", TIMING_KEYS)):
        missing += [f"{section}.{key}" for key in keys if key not in results.get(section, ())]
    if missing:
        raise ValueError(f"results lack {', '.join(missing)}")
    ordered = {key: results[key] for key in RESULT_KEYS} | dict(results) | {"attempt": attempt}
    atomic_write_json(Path(output_dir) / RESULTS, ordered)


class _Needed(TypedDict):
    """The keys that readers of a results.json rely on."""

    task: str
    model: NotRequired[str]
    metrics: NotRequired[dict[str, dict[str, Any]]]
    attempt: NotRequired[int]


def read_results(output_dir: Path | str) -> dict[str, Any] | None:
    """Read results.json; None if there is no such file. Raises RunFolderError if it is damaged."""
    path = Path(output_dir) / RESULTS
    try:
        results = json_object(path.read_bytes())
        typed(_Needed, results)
        return results
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged ({error}). Remove it to go on from the last checkpoint, "
            "or start from the beginning with --overwrite."
        ) from error


def model_card(results: Mapping[str, Any], *, synthetic: bool = False) -> str:
    """Return the text of the model folder's README.md: origin, metrics and use of the model.

    `synthetic` adds a note that the training data is synthetic.
    """
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
{results["global_batch"]} examples, {results["precision"]}, seed {results["seed"]}{_trained(results)}.

```python
{_usage(results)}
```
"""


def _usage(results: Mapping[str, Any]) -> str:
    """Return the code that loads the folder: a whole model, or an adapter of peft."""
    if results.get("lora", {}).get("merge", True):
        return 'from transformers import pipeline\n\nclassify = pipeline("text-classification", "PATH_OF_THIS_FOLDER")'
    return (
        "from peft import AutoPeftModelForSequenceClassification as Adapted\n\n"
        f'model = Adapted.from_pretrained("PATH_OF_THIS_FOLDER", num_labels={results["outputs"]})'
    )


def _trained(results: Mapping[str, Any]) -> str:
    """Return what the card says about weights that were not trained, and about their rates."""
    lora, parts = results.get("lora"), []
    if lora:
        merged = ", merged into this model" if lora["merge"] else ", for peft"
        parts.append(f"; a LoRA adapter of rank {lora['r']}, alpha {lora['alpha']:g}{merged}")
    if results.get("freeze"):
        parts.append(f"; not trained: {', '.join(results['freeze'])}")
    if "layer_decay" in results:
        parts.append(f"; learning rate times {results['layer_decay']:g} from each layer to the one below")
    return "".join(parts)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "null" if value is None else str(value)
