"""Writes the model card of a finished run: model/README.md, with the metadata that the Hugging Face Hub reads.

The metadata is made by huggingface_hub's own classes, which quote every name as YAML needs. Nothing is asked from the
Hub. The license is not set: only the owner of model and data can choose it.
"""

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsys.config.run_config import RunConfig
from ftsys.errors import ConfigError
from ftsys.files.atomic import atomic_write_text
from ftsys.model_files.card import SECTION
from ftsys.model_files.folder import BUNDLED, BUNDLED_HUB_NAME
from ftsys.run_folder.layout import model_title
from ftsys.tasks import GLUE, Task

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?", re.ASCII)
_GLUE_ON_HUB = "nyu-mll/glue"
_SPREAD = ("<!-- spread over seeds -->", "<!-- end of spread -->")
_SYNTHETIC = (
    "**The training data is synthetic**: sentence pairs generated from a grammar. The model shows that the software "
    "works; it is not meant for use."
)


def model_card(results: Mapping[str, Any], run: RunConfig, task: Task) -> str:
    """Return the text of the card: metadata, metrics, use, recipe and facts of the training."""
    from huggingface_hub import ModelCardData

    name = f"{model_title(str(results['model']))} fine-tuned on {results['task']}"
    data = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["ftsys", "text-classification", *(["regression"] if task.regression else [])],
        base_model=_base_model(run),
        datasets=_hub_data_set(run, task),
        metrics=list(task.metrics),
        eval_results=list(_eval_results(results, run, task)) or None,
    )
    # `ftsys predict` reads this section.
    setattr(data, SECTION, {"columns": list(task.columns), "max_length": run.data.max_length})
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(_body(name, results, run, task)) + "\n"


def _base_model(run: RunConfig) -> str | None:
    """Return the model's name on the Hub; None for a local folder, whose name means nothing to others."""
    name = BUNDLED_HUB_NAME if run.model.name == BUNDLED else run.model.name
    return name if _HUB_NAME.fullmatch(name) and not Path(name).exists() else None


def _hub_data_set(run: RunConfig, task: Task) -> list[str] | None:
    source = run.data.source
    if source == "hub" or task.name in GLUE:
        return [_GLUE_ON_HUB]
    name = source.removeprefix("hub:") if isinstance(source, str) and source.startswith("hub:") else ""
    return [name] if _HUB_NAME.fullmatch(name) and not Path(name).exists() else None


def _eval_results(results: Mapping[str, Any], run: RunConfig, task: Task) -> "Iterator[EvalResult]":
    """Yield a result for each metric of each split that is a finite number, without the loss."""
    from huggingface_hub import EvalResult

    data_set = (_hub_data_set(run, task) or [task.name])[0]
    for split, metric, value in _values(results["metrics"]):
        if metric != "loss" and math.isfinite(value):
            yield EvalResult(
                task_type="text-classification",
                task_name="Text Classification",
                dataset_type=data_set,
                dataset_name=f"GLUE {task.name}" if data_set == _GLUE_ON_HUB else task.name,
                dataset_config=task.name if data_set == _GLUE_ON_HUB else None,
                dataset_split=split,
                metric_type=metric,
                metric_name=metric,
                metric_value=value,
            )


def _values(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """Yield (split, metric, value), NaN for a metric that is undefined; numbers of examples are no metric."""
    for split, found in metrics.items():
        for metric, value in found.items():
            if metric != "examples":
                yield split, metric, math.nan if value is None else float(value)


def _body(name: str, results: Mapping[str, Any], run: RunConfig, task: Task) -> Iterator[str]:
    yield f"# {_plain(name)}"
    if results.get("data") == "synthetic":
        yield _SYNTHETIC
    rows = [
        (split, metric, f"{value:.4f}" if value == value else "null")
        for split, metric, value in _values(results["metrics"])
    ]
    yield _table(("split", "metric", "value"), rows)
    yield "## Use"
    yield _use_of_adapter(task) if run.lora.r is not None and not run.lora.merge else _use(task)
    yield "## Training"
    yield _table(("setting", "value"), list(_recipe(results, run)))
    yield _origin(results, run)
    yield (
        "The language of the data is not recorded. No license is set: it depends on the base model and the data. Write "
        "`license: ...` into the head of this file before you publish the model."
    )


def _use(task: Task) -> str:
    pair = len(task.columns) == 2
    text = '{"text": "First text.", "text_pair": "Second text."}' if pair else '"A text."'
    options = ', function_to_apply="none"' if task.regression else ""
    return f"""With transformers:

```python
from transformers import pipeline

classify = pipeline("text-classification", "PATH_OF_THIS_FOLDER")
print(classify({text}{options}))
```

With ftsys, a whole file at once:

```bash
ftsys predict PATH_OF_THIS_FOLDER FILE --output scored.csv
```"""


def _use_of_adapter(task: Task) -> str:
    """Return how to load a LoRA adapter that is not merged into its base model."""
    return f"""This folder has a LoRA adapter, and no base model. With peft:

```python
from peft import AutoPeftModelForSequenceClassification

model = AutoPeftModelForSequenceClassification.from_pretrained("PATH_OF_THIS_FOLDER", num_labels={task.num_outputs})
```"""


def _recipe(results: Mapping[str, Any], run: RunConfig) -> Iterator[tuple[str, object]]:
    """Yield the settings that decide the weights, and then the fields of [trainer] as they were given."""
    size = results["global_batch"]
    yield "base model", results["model"]
    yield "epochs", f"{results['epochs']:g}"
    yield "optimizer steps", f"{results['steps']:,}"
    yield "examples in a step", size if isinstance(size, int) else f"up to {run.batch.global_tokens:,} tokens"
    yield "learning rate", f"{run.train.learning_rate:g}"
    yield "maximum tokens of an example", run.data.max_length
    yield "seed", results["seed"]
    yield "precision", results["precision"]
    yield from _trained(run)
    for key, value in run.trainer.items():
        yield f"trainer.{key}", value


def _trained(run: RunConfig) -> Iterator[tuple[str, object]]:
    """Yield the settings that decide how the weights were trained, where they differ from the defaults."""
    if run.lora.r is not None:
        merged = "merged into this model" if run.lora.merge else "not merged"
        yield "LoRA", f"rank {run.lora.r}, alpha {run.lora.alpha:g}, {merged}"
    if run.train.freeze:
        yield "not trained", ", ".join(run.train.freeze)
    if run.train.dropout is not None:
        yield "dropout", f"{run.train.dropout:g}"
    if run.train.layer_decay < 1:
        yield "learning rate from each layer to the one below", f"times {run.train.layer_decay:g}"


def _origin(results: Mapping[str, Any], run: RunConfig) -> str:
    versions, timing, speed = (results.get(key, {}) for key in ("versions", "timing", "throughput"))
    ranks = results["world_size"]
    facts = [
        f"Trained by ftsys {versions.get('ftsys', '')} on {ranks} rank{'' if ranks == 1 else 's'}".replace("  ", " ")
    ]
    if timing.get("train_s"):
        facts.append(
            f"{timing['train_s']:,.0f} s of training at {speed.get('real_tokens_per_s') or 0:,.0f} real tokens/s"
        )
    names = ("torch", "transformers", "tokenizers")
    used = [f"{name} {versions[name]}" for name in names if name in versions]
    return ", ".join(facts) + (f", with {', '.join(used)}." if used else ".")


def add_spread(card_path: Path, spread: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Write the spread over seeds into a card, in place of an earlier one. `spread[split][metric]` has a value a seed.

    The deviation is that of a sample; it is left out for a single seed. Raises ConfigError for a file that cannot be
    read, and StorageError.
    """
    try:
        text = card_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(card_path)!r} cannot be read ({error}): train the model again.") from error
    rows = [
        (split, metric, len(values), f"{statistics.fmean(values):.4f}", _deviation(values))
        for split, found in spread.items()
        for metric, values in found.items()
        if values
    ]
    note = "This model is one of several that differ in their seed only:"
    section = [_SPREAD[0], note, _table(("split", "metric", "seeds", "mean", "deviation"), rows), _SPREAD[1]]
    before, begin, rest = text.partition(_SPREAD[0])
    if begin:
        after = rest.partition(_SPREAD[1])[2].lstrip("\n")
    else:
        before, use, after = text.partition("## Use\n")
        after = use + after
    atomic_write_text(card_path, before.rstrip("\n") + "\n\n" + "\n\n".join(section) + "\n\n" + after)


def _deviation(values: Sequence[float]) -> str:
    return f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(_plain, map(str, row)))} |" for row in [header, *rows]]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def _plain(text: str) -> str:
    """Return a name as one line that Markdown shows as it is: a name may hold any character."""
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", " ".join(text.split()))
