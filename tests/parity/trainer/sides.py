"""One and the same run with transformers' Trainer and with ours, on a tiny BERT, and all that can be seen of it."""

import functools
import math
import random
import signal
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, TrainerCallback

import ftsys

STOCK, OURS = "stock", "ours"
CLASSES: dict[str, tuple[Any, Any]] = {
    STOCK: (transformers.Trainer, transformers.TrainingArguments),
    OURS: (ftsys.Trainer, ftsys.TrainingArguments),
}
WORDS = 40
BASE: dict[str, Any] = {
    "use_cpu": True,
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
TOLERANCE = 1e-5
TIMES = ("runtime", "per_second", "preparation_time", "total_flos", "mem_")


@dataclass(frozen=True)
class Row:
    """A run of both Trainers.

    `differs` has, for each thing seen that is not the same, the reason; a test holds it to be different. `packed` tells
    whether ours packs. `stock_fails` is the stock Trainer's own error, where ours has none. `options` are made anew for
    each Trainer: of its constructor, or by another name of `observe`.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Callable[[], Mapping[str, Any]] = dict
    differs: Mapping[str, str] = field(default_factory=dict)
    packed: bool = True
    tolerance: float = TOLERANCE
    stock_fails: str = ""


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Tokenized pairs of 4 to 15 tokens; the label can be learned from the first token."""
    generator, made = random.Random(seed), []
    for index in range(count):
        ids = [generator.randrange(1, WORDS) for _ in range(generator.randrange(4, 16))]
        half = len(ids) // 2
        types = [0] * half + [1] * (len(ids) - half)
        made.append(
            {"input_ids": ids, "token_type_ids": types, "attention_mask": [1] * len(ids), "label": ids[0] % 2}
            | {"text": f"row {index}"}
        )
    return made


@functools.cache
def data(count: int, seed: int = 0) -> datasets.Dataset:
    """`rows` as a data set."""
    return datasets.Dataset.from_list(rows(count, seed))


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose word w0 pads."""
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(WORDS)}, unk_token="w1"))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", model_input_names=names)


def model(dropout: float = 0.0, **more: Any) -> BertForSequenceClassification:
    """Two layers of width 32, always the same weights."""
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return BertForSequenceClassification(
        BertConfig(vocab_size=WORDS, max_position_embeddings=24, pad_token_id=0, **shape, **rates, **more)
    )


def accuracy(found: Any) -> dict[str, float]:
    """LocalBatch of rows whose largest logit is the label's."""
    return {"accuracy": float((np.asarray(found.predictions).argmax(-1) == np.asarray(found.label_ids)).mean())}


class Events(TrainerCallback):
    """The names of the events of a run, in order. A prediction step is a batch there and a pack here: left out."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_") and name != "on_prediction_step":
            self.names.append(name)
        return super().__getattribute__(name)


def trainer_of(side: str, folder: Path, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """The Trainer of one side; `options` override what its constructor is given."""
    trainer_class, arguments_class = CLASSES[side]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        arguments = arguments_class(str(folder), **(BASE | dict(settings)))
    given = {
        "args": arguments,
        "train_dataset": data(12),
        "eval_dataset": data(10, seed=1),
        "processing_class": tokenizer(),
        "compute_metrics": accuracy,
        **({} if "model_init" in options else {"model": model()}),
    }
    return trainer_class(**(given | dict(options)))


def observe(side: str, folder: Path, row: Row) -> dict[str, Any]:
    """Train, predict, and return what can be seen; an exception's kind and text where there was one."""
    options = dict(row.options())
    subclass, test = options.pop("subclass", None), options.pop("test_dataset", data(10, seed=2))
    before = signal.getsignal(signal.SIGTERM)
    try:
        if subclass is not None:
            original, CLASSES[side] = CLASSES[side], (subclass(CLASSES[side][0]), CLASSES[side][1])
        try:
            trainer = trainer_of(side, folder, row.settings, options)
        finally:
            if subclass is not None:
                CLASSES[side] = original
        events = Events()
        trainer.add_callback(events)
        result = trainer.train()
        predicted = trainer.predict(test)
    except (ValueError, TypeError, RuntimeError, KeyError, ImportError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        signal.signal(signal.SIGTERM, before)
        torch.use_deterministic_algorithms(False)
    return seen(trainer, events, result, predicted, folder)


def seen(trainer: Any, events: Events, result: Any, predicted: Any, folder: Path) -> dict[str, Any]:
    """Everything of a run by name; times are left out, their names are not."""
    history = trainer.state.log_history
    training = [line for line in history if "loss" in line]
    evaluations = [line for line in history if any(key.startswith("eval_") for key in line)]
    # TensorBoard names its files by the time and the process.
    named = (path.parent.parent if path.name.startswith("events.out") else path for path in folder.rglob("*.*"))
    files = sorted(str(path.relative_to(folder)) for path in named)
    return {
        "losses": [line["loss"] for line in training],
        "norms": [line.get("grad_norm", math.nan) for line in training],
        "rates": [line["learning_rate"] for line in training],
        "logged": [(line["step"], line.get("epoch"), sorted(line)) for line in history],
        "tokens": [line.get("num_input_tokens_seen") for line in training],
        "evaluations": [without_times(line) for line in evaluations],
        "result": (result.global_step, sorted(result.metrics)),
        "training_loss": result.training_loss,
        "predictions": predicted.predictions,
        "label_ids": predicted.label_ids,
        "test_metrics": without_times(predicted.metrics),
        "test_names": sorted(predicted.metrics),
        "events": events.names,
        "best": (trainer.state.best_metric, trainer.state.best_global_step),
        "checkpoints": sorted({name.split("/")[0] for name in files if name.startswith("checkpoint-")}),
        "files": files,
        "config": trainer.model.config.to_dict(),
        "packed": not trainer.padded_reasons if hasattr(trainer, "padded_reasons") else None,
    }


def without_times(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if not any(word in key for word in TIMES)}


def equal(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two things seen are the same: numbers to the tolerance, kinds and shapes of arrays exactly."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        same = one.shape == other.shape and one.dtype == other.dtype
        return same and np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return False
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(equal(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def differences(stock: Mapping[str, Any], ours: Mapping[str, Any], tolerance: float) -> dict[str, Any]:
    """What is not the same, by name, with both values."""
    names = (stock.keys() | ours.keys()) - {"packed"}
    found = {name: (stock.get(name), ours.get(name)) for name in sorted(names)}
    return {name: pair for name, pair in found.items() if not equal(*pair, tolerance)}


def check(row: Row, folder: Path) -> None:
    """Run both, and hold what differs against what the row says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        stock, ours = observe(STOCK, folder / STOCK, row), observe(OURS, folder / OURS, row)
    if row.stock_fails:
        assert row.stock_fails in stock["error"]
        assert "error" not in ours
        return
    found = differences(stock, ours, row.tolerance)
    assert sorted(found) == sorted(row.differs), found
    assert ours.get("packed", False) == row.packed
