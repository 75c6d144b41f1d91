"""Tests what the Trainer is made of: two classes, each stock method overridden once, one attribute of its own."""

from pathlib import Path

import pytest
import transformers

from ftsys.train.trainer.checkpointers.run_folder import Attempt, RunFolderCheckpointer
from ftsys.train.trainer.checkpointers.stock_layout import StockLayoutCheckpointer
from ftsys.train.trainer.composed import ComposedTrainer
from ftsys.train.trainer.hooks import RunHooks
from ftsys.train.trainer.predictions import EvaluationStopped
from ftsys.train.trainer.trainer import Trainer
from tests.parity.trainer.sides import BASE, OURS, STOCK, data, model, trainer_of


def own_classes() -> list[type]:
    return [kind for kind in Trainer.__mro__ if kind.__module__.startswith("ftsys.")]


def test_there_are_two_classes_and_each_stock_method_is_overridden_once() -> None:
    assert own_classes() == [Trainer, ComposedTrainer]
    stock = {name for name, value in vars(transformers.Trainer).items() if callable(value)} - {"__init__"}
    overridden = [name for kind in own_classes() for name in vars(kind) if name in stock]
    assert len(overridden) == len(set(overridden)) <= 26


def test_a_script_that_subclasses_it_meets_one_attribute_more_than_the_stock_ones(tmp_path: Path) -> None:
    stock, ours = (trainer_of(side, tmp_path / side, {}, {}) for side in (STOCK, OURS))
    assert vars(ours).keys() - vars(stock).keys() == {"parts"}


def test_checkpointer_and_hooks_are_given_to_the_constructor(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "checkpoints", "identity", 1, keep=1)
    checkpointer, seen = RunFolderCheckpointer(attempt), []
    hooks = RunHooks(on_evaluation_progress=lambda name, done, total: seen.append((name, done, total)))
    settings = BASE | {"save_strategy": "steps", "save_steps": 3}
    arguments = transformers.TrainingArguments(str(tmp_path), **settings)
    trainer = Trainer(
        model(), arguments, train_dataset=data(12), eval_dataset=data(4), checkpointer=checkpointer, hooks=hooks
    )
    trainer.train()
    trainer.evaluate()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]
    assert seen[-1] == ("eval", 4, 4)
    assert isinstance(Trainer(model(), arguments).parts.checkpointer, StockLayoutCheckpointer)


def test_a_hook_ends_an_evaluation(tmp_path: Path) -> None:
    arguments = transformers.TrainingArguments(str(tmp_path), **(BASE | {"per_device_eval_batch_size": 1}))
    trainer = Trainer(model(), arguments, eval_dataset=data(400), hooks=RunHooks(stop_wanted=lambda: True))
    trainer.args.micro_tokens = 16
    with pytest.raises(EvaluationStopped):
        trainer.evaluate()
