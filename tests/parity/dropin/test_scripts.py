"""Habits of scripts: callbacks that iterate over loaders, changed rows and arguments, methods of transformers 4."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from ftsys.train.trainer.loss import gives_mean_of_batch
from tests.parity.trainer.sides import CLASSES, OURS, STOCK, accuracy, data, model, rows, trainer_of


class Look(TrainerCallback):
    """Takes the loaders it is handed, and those of the Trainer."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.seen: list[Any] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **more: Any) -> None:
        for loader in (train_dataloader, self.trainer.get_train_dataloader()):
            self.seen.append([(sorted(batch), batch["labels"].tolist().__len__()) for batch in loader])

    def on_evaluate(self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **more: Any) -> None:
        for loader in (eval_dataloader, self.trainer.get_eval_dataloader(), self.trainer.get_test_dataloader(data(6))):
            self.seen.append([(sorted(batch), batch["labels"].tolist()) for batch in loader])

    def on_prediction_step(self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **more: Any) -> None:
        self.batch = sorted(next(iter(eval_dataloader)))


def test_callbacks_get_stock_loaders(tmp_path: Path) -> None:
    looks = {}
    for side in (STOCK, OURS):
        looks[side] = Look()
        settings = {"eval_strategy": "epoch", "max_steps": -1, "num_train_epochs": 1}
        looks[side].trainer = trainer_of(side, tmp_path / side, settings, {"callbacks": [looks[side]]})
        looks[side].trainer.train()
    assert looks[OURS].seen == looks[STOCK].seen
    assert looks[OURS].batch == looks[STOCK].batch
    assert looks[OURS].trainer.padded_reasons == []


def test_a_hook_that_comes_with_the_training_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Hook(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
            model.classifier.register_forward_hook(lambda *given: None)

    trainer = trainer_of(OURS, tmp_path, {}, {"callbacks": [Hook()]})
    with caplog.at_level(logging.WARNING, "ftsys"):
        trainer.train()
    assert [record.getMessage() for record in caplog.records if record.name == "ftsys"] == [
        "ftsys: a hook of your own on classifier (Linear) would see packed rows: put it there before "
        "train() is called, or give packing=False"
    ]


def test_rows_of_a_list_that_a_callback_changes_are_seen(tmp_path: Path) -> None:
    class Flip(TrainerCallback):
        def __init__(self, listed: list[dict[str, Any]]) -> None:
            self.listed = listed

        def on_epoch_begin(self, *args: Any, **more: Any) -> None:
            for row in self.listed:
                row["label"] = 1 - row["label"]

    found = {}
    for side in (STOCK, OURS):
        listed = rows(12)
        options = {"train_dataset": listed, "callbacks": [Flip(listed)]}
        trainer = trainer_of(side, tmp_path / side, {"max_steps": -1, "num_train_epochs": 2}, options)
        trainer.train()
        found[side] = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert found[OURS] == pytest.approx(found[STOCK], rel=1e-5)
    assert trainer.padded_reasons == []


def test_the_batch_per_device_is_settled_when_the_trainer_is_made(tmp_path: Path) -> None:
    steps = {}
    for side in (STOCK, OURS):
        trainer = trainer_of(side, tmp_path / side, {"max_steps": -1, "num_train_epochs": 1}, {})
        trainer.args.per_device_train_batch_size = 2
        trainer.args.gradient_accumulation_steps = 3
        trainer.train()
        steps[side] = trainer.state.global_step
    assert steps[OURS] == steps[STOCK]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_methods_of_transformers_4_are_taken(accumulation: int, tmp_path: Path) -> None:
    def own(base: Any, **more: Any) -> Any:
        class Own(base):
            def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
                labels = inputs.pop("labels")
                outputs = model(**inputs)
                loss = nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 3.0]))
                return (loss, outputs) if return_outputs else loss

        return Own

    def old(base: Any) -> Any:
        class Old(own(base)):  # type: ignore[misc]  # a class made for this test
            def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
                return super().compute_loss(model, inputs, return_outputs)

            def training_step(self, model: Any, inputs: Any) -> Any:
                return super().training_step(model, inputs)

            def log(self, logs: Any) -> None:
                super().log(logs)

            def create_optimizer(self) -> Any:
                return super().create_optimizer()

        return Old

    settings = {"gradient_accumulation_steps": accumulation, "eval_strategy": "steps"}
    found = {}
    for name, make in (("today's", own), ("old", old)):
        kind, arguments = CLASSES[OURS]
        try:
            with pytest.warns(FutureWarning) if make is old else nullcontext():
                CLASSES[OURS] = make(kind), arguments
            trainer = trainer_of(OURS, tmp_path / name, settings, {"compute_metrics": accuracy})
        finally:
            CLASSES[OURS] = kind, arguments
        trainer.model_accepts_loss_kwargs = False
        trainer.train()
        found[name] = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert found["old"] == pytest.approx(found["today's"], rel=1e-6)


class Classifier(type(model())):  # type: ignore[misc]  # whatever class the tiny model has
    """A script's own name for a model of transformers."""


def renamed() -> Any:
    made: Any = model()
    made.__class__ = Classifier
    return made


def adapted_without_a_task() -> Any:
    made = model()
    torch.manual_seed(1)
    return peft.get_peft_model(made, peft.LoraConfig(r=2, target_modules=["query", "value"]))


@pytest.mark.parametrize("make", [renamed, adapted_without_a_task])
def test_accumulated_batches_have_the_loss_and_gradient_of_one(make: Any, tmp_path: Path) -> None:
    found = {}
    for batch, accumulation in ((4, 1), (2, 2)):
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        trainer = trainer_of(OURS, tmp_path / str(batch), settings, {"model": make()})
        trainer.train()
        lines = [line for line in trainer.state.log_history if "loss" in line]
        found[batch] = [line[key] for line in lines for key in ("loss", "grad_norm")]
    assert found[2] == pytest.approx(found[4], rel=1e-4)


def test_a_model_that_scales_its_own_loss_is_left_alone() -> None:
    class Scaling(type(model())):  # type: ignore[misc]  # whatever class the tiny model has
        def forward(self, *given: Any, num_items_in_batch: Any = None, **inputs: Any) -> Any:
            return super().forward(*given, **inputs)

    made: Any = model()
    made.__class__ = Scaling
    assert not gives_mean_of_batch(made)
    made.__class__ = Classifier
    assert gives_mean_of_batch(made)
    made.accepts_loss_kwargs = True
    assert not gives_mean_of_batch(made)
