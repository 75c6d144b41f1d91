"""The behaviour table, second part: a row for each thing that the stock Trainer's constructor and methods take."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import DataCollatorWithPadding, EarlyStoppingCallback, default_data_collator

import ftsys
from tests.parity.trainer.rows import GROUPING, LOSS_SCALE, NO_PICKLE, OWN_LOSSES
from tests.parity.trainer.sides import (
    BASE,
    OURS,
    STOCK,
    WORDS,
    Row,
    accuracy,
    check,
    data,
    equal,
    model,
    rows,
    tokenizer,
    trainer_of,
)


class Indexed(torch.utils.data.Dataset):
    """A data set of the user's own."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {key: value for key, value in rows(12)[index].items() if key != "text"}


class Streamed(torch.utils.data.IterableDataset):
    """A data set without a length."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(rows(12))


def own_collator(batch: list[dict[str, Any]]) -> Any:
    return DataCollatorWithPadding(tokenizer())([{k: v for k, v in row.items() if k != "text"} for row in batch])


def padded_rows() -> Any:
    return data(12).map(
        lambda row: dict(tokenizer().pad({k: row[k] for k in PADDED}, padding="max_length", max_length=16))
    )


PADDED = ("input_ids", "token_type_ids", "attention_mask")


def equal_rows() -> list[dict[str, Any]]:
    return [{"input_ids": row["input_ids"][:4], "labels": row["label"]} for row in rows(12)]


def with_optimizer() -> dict[str, Any]:
    made = model()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9)
    return {"model": made, "optimizers": (optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5))}


def mean_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs.logits, labels) * 2


def own_loss(base: Any) -> Any:
    class Weighted(base):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = torch.nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 3.0]))
            return (loss, outputs) if return_outputs else loss

    return Weighted


def chosen(logits: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    return logits.argmax(-1)


def agreement(found: Any) -> dict[str, Any]:
    return {"agreement": np.mean(found.predictions == found.label_ids), "eval_named": np.int64(3)}


def losses_seen(found: Any) -> dict[str, float]:
    return {"mean_of_losses": float(np.mean(found.losses)), "spread": float(np.std(found.losses))}


def numbers(count: int, seed: int = 0) -> Any:
    return data(count, seed).map(lambda row: {"label": len(row["input_ids"]) / 4})


def error(found: Any) -> dict[str, float]:
    return {"mse": float(((found.predictions[:, 0] - found.label_ids) ** 2).mean())}


EVALUATED = {"eval_strategy": "steps"}
STOPPED = {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True, "max_steps": 12}
ROWS: dict[str, Row] = {
    "args: transformers' own": Row(options=lambda: {"args": stock_arguments()}),
    "callbacks": Row(
        {**STOPPED, "eval_steps": 1, "save_steps": 1},
        lambda: {"callbacks": [EarlyStoppingCallback(1)]},
        differs={"files": NO_PICKLE},
    ),
    "compute_loss of a subclass": Row(EVALUATED, lambda: {"subclass": own_loss}, packed=False),
    "compute_loss of a subclass, accumulated": Row(
        {"gradient_accumulation_steps": 2},
        lambda: {"subclass": own_loss},
        differs=dict.fromkeys(("losses", "norms", "predictions", "test_metrics", "training_loss"), LOSS_SCALE),
        packed=False,
    ),
    "compute_loss_func": Row(EVALUATED, lambda: {"compute_loss_func": mean_loss}, packed=False),
    "compute_metrics: a loss of its own": Row(
        EVALUATED, lambda: {"compute_metrics": lambda found: {"loss": 3.0, "eval_loss": 4.0}}
    ),
    "compute_metrics: none": Row(EVALUATED, lambda: {"compute_metrics": None}),
    "compute_metrics: numpy": Row(
        EVALUATED, lambda: {"compute_metrics": agreement, "preprocess_logits_for_metrics": chosen}
    ),
    "compute_metrics: with losses": Row(
        EVALUATED | {"include_for_metrics": ["loss"]},
        lambda: {"compute_metrics": losses_seen},
        differs=dict.fromkeys(("evaluations", "test_metrics"), OWN_LOSSES),
    ),
    "data_collator: its own": Row(options=lambda: {"data_collator": own_collator}, packed=False),
    "data_collator: multiples": Row(
        options=lambda: {"data_collator": DataCollatorWithPadding(tokenizer(), pad_to_multiple_of=8)}
    ),
    "data_collator: the default one": Row(
        options=lambda: {
            "data_collator": default_data_collator,
            "train_dataset": equal_rows(),
            "eval_dataset": equal_rows(),
            "test_dataset": equal_rows(),
        }
    ),
    "eval_dataset: several": Row(EVALUATED, lambda: {"eval_dataset": {"one": data(5, seed=3), "two": data(7, seed=4)}}),
    "model_init": Row(EVALUATED, lambda: {"model_init": lambda: model()}),
    "model: in float64": Row(EVALUATED, lambda: {"model": model().double()}),
    "model: regression": Row(
        EVALUATED,
        lambda: {
            "model": model(num_labels=1),
            "train_dataset": numbers(12),
            "eval_dataset": numbers(10, 1),
            "test_dataset": numbers(10, 2),
            "compute_metrics": error,
        },
    ),
    "model: regression on whole numbers": Row(
        EVALUATED, lambda: {"model": model(num_labels=1), "compute_metrics": error}
    ),
    "optimizer_cls_and_kwargs": Row(
        options=lambda: {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.5})}
    ),
    "optimizers": Row(options=with_optimizer),
    "predict: a list": Row(options=lambda: {"test_dataset": rows(9, seed=2)}),
    "predict: in the order of the data": Row(
        {"train_sampling_strategy": "group_by_length", "max_steps": 1, "per_device_train_batch_size": 12},
        differs=dict.fromkeys(("predictions", "label_ids"), GROUPING),
    ),
    "predict: without labels": Row(options=lambda: {"test_dataset": data(9, seed=2).remove_columns("label")}),
    "preprocess_logits_for_metrics": Row(
        EVALUATED, lambda: {"preprocess_logits_for_metrics": chosen, "compute_metrics": agreement}
    ),
    "processing_class: tokenizer": Row(options=lambda: {"processing_class": tokenizer()}),
    "train_dataset: a list": Row(options=lambda: {"train_dataset": rows(12)}),
    "train_dataset: another format": Row(options=lambda: {"train_dataset": data(12).with_format("torch")}),
    "train_dataset: of the user's own class": Row(options=lambda: {"train_dataset": Indexed()}, packed=False),
    "train_dataset: padded beforehand": Row(options=lambda: {"train_dataset": padded_rows()}),
    "train_dataset: streamed": Row(options=lambda: {"train_dataset": Streamed()}, packed=False),
    "train_dataset: streamed by datasets": Row(
        options=lambda: {"train_dataset": data(12).remove_columns("text").to_iterable_dataset()}, packed=False
    ),
    "train_dataset: with a mask in the middle": Row(
        options=lambda: {"train_dataset": [{**row, "attention_mask": holes(row)} for row in rows(12)]}, packed=False
    ),
}


def holes(row: dict[str, Any]) -> list[int]:
    return [1, 0, *([1] * (len(row["input_ids"]) - 2))]


def stock_arguments() -> transformers.TrainingArguments:
    return transformers.TrainingArguments("unused", **BASE)


@pytest.mark.parametrize("name", list(ROWS))
def test_what_transformers_takes_gives_what_it_gives_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check(ROWS[name], tmp_path)


def test_every_argument_of_the_constructor_has_a_row() -> None:
    taken = set(inspect.signature(transformers.Trainer).parameters)
    named = {name.partition(":")[0].partition(" of ")[0] for name in ROWS}
    assert taken - named - {"eval_dataset"} == set()


def test_every_method_is_there_with_its_own_arguments() -> None:
    for name, method in inspect.getmembers(transformers.Trainer, inspect.isfunction):
        if not name.startswith("_"):
            theirs, ours = inspect.signature(method), inspect.signature(getattr(ftsys.Trainer, name))
            assert list(ours.parameters) == list(theirs.parameters), name


def test_the_constructor_knows_the_stock_names_in_their_order() -> None:
    from ftsys.train.trainer.trainer import _NAMES

    assert tuple(inspect.signature(transformers.Trainer).parameters) == _NAMES


def test_loaders_for_a_look_at_the_data_are_the_stock_ones(tmp_path: Path) -> None:
    made = [trainer_of(side, tmp_path / side, {}, {}) for side in (STOCK, OURS)]
    for name, given in (("get_train_dataloader", ()), ("get_eval_dataloader", ()), ("get_test_dataloader", (data(7),))):
        theirs, ours = (next(iter(getattr(trainer, name)(*given))) for trainer in made)
        assert dict(ours).keys() == dict(theirs).keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert type(made[1].model(**dict(ours)).logits) is torch.Tensor


def test_evaluate_takes_another_set_and_prefix(tmp_path: Path) -> None:
    found = []
    for side in (STOCK, OURS):
        trainer = trainer_of(side, tmp_path / side, {}, {})
        metrics = trainer.evaluate(data(9, seed=5), metric_key_prefix="other")
        found.append({key: value for key, value in metrics.items() if "second" not in key and "time" not in key})
        assert [name for name in metrics if not name.startswith("other_")] == ["epoch"]
        assert {"other_runtime", "other_model_preparation_time", "other_samples_per_second"} <= set(metrics)
    assert equal(found[0], found[1], 1e-6)


def test_a_saved_model_has_the_same_files_and_loads(tmp_path: Path) -> None:
    files = {}
    for side in (STOCK, OURS):
        trainer = trainer_of(side, tmp_path / side, {}, {})
        result = trainer.train()
        trainer.save_model()
        trainer.save_state()
        trainer.log_metrics("train", dict(result.metrics))
        trainer.save_metrics("train", result.metrics)
        files[side] = sorted(path.name for path in (tmp_path / side).iterdir())
    assert files[OURS] == files[STOCK]
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / OURS)
    ids = torch.arange(1, WORDS)[None, :9]
    assert torch.allclose(loaded(ids).logits, trainer.model.eval()(ids).logits, atol=1e-6)
    assert loaded.config._attn_implementation == "sdpa"


def test_labels_of_minus_one_are_predicted_without_a_loss(tmp_path: Path) -> None:
    """GLUE's test sets carry them; the stock Trainer ends with an IndexError."""
    unlabelled = data(9).map(lambda row: {"label": -1})
    with pytest.raises(IndexError, match="out of bounds"):
        trainer_of(STOCK, tmp_path, {}, {}).predict(unlabelled)
    trainer = trainer_of(OURS, tmp_path, {}, {})
    found = trainer.predict(unlabelled)
    assert found.predictions.shape == (9, 2)
    assert found.label_ids is None
    assert "test_loss" not in found.metrics
    labelled = data(9)
    right = (trainer.predict(labelled).predictions.argmax(axis=1) == np.array(labelled["label"])).mean()
    assert accuracy(trainer.predict(labelled))["accuracy"] == pytest.approx(right)
