"""Lists shapes of training scripts: what a script passes to the Trainer besides a tokenized data set and a collator.

Each script runs with the stock classes and with ours, and nothing else in it differs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

WEIGHTS = (1.0, 3.0)
"""Class weights of the scripts with a loss of their own."""


@dataclass(frozen=True)
class Material:
    """The model's folder, the tokenized rows (a `datasets.Dataset`), and the tokenizer that pads them."""

    folder: Path
    rows: Any
    tokenizer: Any

    def model(self, **settings: Any) -> Any:
        """Return the model with two outputs, its new head from seed 0."""
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(
            self.folder, num_labels=2, **settings, trust_remote_code=False
        )


@dataclass(frozen=True)
class Shape:
    """One shape: arguments of the Trainer and of TrainingArguments, and a subclass of the Trainer where it has one."""

    options: Callable[[Material], dict[str, Any]] = lambda material: {}
    settings: dict[str, Any] = field(default_factory=dict)
    subclass: Callable[[Any], Any] = lambda base: base


class _Indexed(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A class of the script's own."""

    def __init__(self, rows: Any) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in self.rows[index].items()}


class _Streamed(torch.utils.data.IterableDataset[dict[str, Any]]):
    def __init__(self, rows: Any) -> None:
        self.rows = list(rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


def _several_labels(material: Material) -> dict[str, Any]:
    rows = material.rows.map(_two_flags, remove_columns=["labels"], load_from_cache_file=False)
    rows = rows.rename_column("flags", "labels")
    return {"model": material.model(problem_type="multi_label_classification"), "train_dataset": rows}


def _two_flags(row: dict[str, Any]) -> dict[str, Any]:
    return {"flags": [float(row["labels"]), float(len(row["input_ids"]) % 2)]}


def _to_max_length(material: Material) -> dict[str, Any]:
    def padded(row: dict[str, Any]) -> dict[str, Any]:
        return dict(material.tokenizer.pad(row, padding="max_length", max_length=128))

    return {"train_dataset": material.rows.map(padded, load_from_cache_file=False)}


def _transformed(material: Material) -> dict[str, Any]:
    rows = material.rows.select(range(len(material.rows)))
    rows.set_transform(lambda batch: {name: [torch.tensor(value) for value in batch[name]] for name in batch})
    return {"train_dataset": rows}


def _frozen(material: Material) -> dict[str, Any]:
    model = material.model()
    model.base_model.embeddings.requires_grad_(False)
    model.base_model.encoder.layer[0].requires_grad_(False)
    return {"model": model}


def _adapted(material: Material) -> dict[str, Any]:
    import peft

    settings = peft.LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
    return {"model": peft.get_peft_model(material.model(), settings)}


def weighted(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Return the loss of a batch with class weights, as `compute_loss_func` is called."""
    return nn.functional.cross_entropy(
        outputs.logits.float(), labels, weight=outputs.logits.new_tensor(WEIGHTS).float()
    )


def _with_loss(base: Any) -> Any:
    class Weighted(base):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = weighted(outputs, labels)
            return (loss, outputs) if return_outputs else loss

    return Weighted


def _with_teacher(base: Any) -> Any:
    class Distilled(base):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            if not hasattr(self, "teacher"):
                self.teacher = AutoModelForSequenceClassification.from_pretrained(
                    model.name_or_path, num_labels=2, trust_remote_code=False
                )
                self.teacher.eval()
            outputs = model(**inputs)
            with torch.no_grad():
                target = self.teacher(**inputs).logits.softmax(-1)
            loss = outputs.loss + nn.functional.cross_entropy(outputs.logits, target)
            return (loss, outputs) if return_outputs else loss

    return Distilled


class _MeanPooler(nn.Module):
    def forward(self, hidden: Tensor) -> Tensor:
        """Return the mean over all positions, padding included."""
        return hidden.mean(1)


def _reading_all_tokens(material: Material) -> dict[str, Any]:
    model = material.model()
    model.base_model.pooler = _MeanPooler()
    return {"model": model}


def _hooked(material: Material) -> dict[str, Any]:
    model = material.model()
    model.base_model.encoder.layer[0].register_forward_hook(_of_a_script(lambda module, inputs, output: None))
    return {"model": model}


def _of_a_script(function: Any) -> Any:
    """Return the function as a script would have written it: hooks of ftsys's own modules are no reason to pad."""
    return FunctionType(function.__code__, {"__name__": "__main__"})


def _own_collator(material: Material) -> dict[str, Any]:
    stock = DataCollatorWithPadding(material.tokenizer)
    return {"data_collator": lambda rows: stock(rows)}


SHAPES: dict[str, Shape] = {
    "datasets.Dataset": Shape(),
    "max_length": Shape(_to_max_length),
    "set_format": Shape(lambda material: {"train_dataset": material.rows.with_format("torch")}),
    "frozen layers": Shape(_frozen),
    "label smoothing": Shape(settings={"label_smoothing_factor": 0.1}),
    "accumulation": Shape(settings={"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}),
    "torch Dataset": Shape(lambda material: {"train_dataset": _Indexed(material.rows)}),
    "stream": Shape(lambda material: {"train_dataset": _Streamed(material.rows)}),
    "set_transform": Shape(_transformed),
    "several labels": Shape(_several_labels),
    "class weights": Shape(lambda material: {"compute_loss_func": weighted}),
    "compute_loss": Shape(subclass=_with_loss),
    "teacher": Shape(subclass=_with_teacher),
    "LoRA": Shape(_adapted),
    "collator": Shape(_own_collator),
    "all tokens": Shape(_reading_all_tokens),
    "hooks": Shape(_hooked),
}
"""By a short name, which the record and the documentation's table use."""
