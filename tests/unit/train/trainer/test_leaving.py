"""Tests what a stopped run leaves behind, and what the next attempt makes of it: evaluations owed, the best model."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from ftsys.errors import StoppedEarly
from ftsys.train.callbacks.graceful_stop import GracefulStop
from ftsys.train.checkpoint.catalog import Checkpoint
from ftsys.train.fault_tolerance.signals import Interruption
from ftsys.train.session import leave, train_until_stopped
from ftsys.train.trainer.checkpointers.run_folder import Attempt, RunFolderCheckpointer
from ftsys.train.trainer.hooks import RunHooks
from ftsys.train.trainer.trainer import Trainer
from tests.parity.trainer.sides import BASE, data, model

STEPS = 3
LAST_STEP_IS_SAVED_FIRST = {"eval_strategy": "epoch", "save_strategy": "steps", "save_steps": STEPS}


def train(folder: Path, number: int, stopped: bool, resume: Path | None = None, **settings: Any) -> Trainer:
    """Train attempt `number` of an epoch of three steps; where `stopped`, the evaluation at its end is interrupted."""
    stopping = GracefulStop(Interruption())
    hooks = RunHooks(stop_wanted=lambda: stopped, evaluation_owed=lambda: stopping.evaluation_owed)
    checkpointer = RunFolderCheckpointer(Attempt(folder / "checkpoints", "identity", number, keep=2), hooks)
    values = BASE | LAST_STEP_IS_SAVED_FIRST | {"per_device_eval_batch_size": 1} | settings
    arguments = transformers.TrainingArguments(str(folder), **values)
    parts: dict[str, Any] = {"checkpointer": checkpointer, "hooks": hooks}
    trainer = Trainer(model(), arguments, train_dataset=data(12), eval_dataset=data(400), **parts)
    trainer.args.micro_tokens = 64
    train_until_stopped(trainer, checkpointer, stopping, None if resume is None else str(resume))
    assert stopping.agreed == stopped
    checkpointer.finish()
    return trainer


def test_an_interrupted_evaluation_of_a_step_that_was_saved_is_made_by_the_next_attempt(tmp_path: Path) -> None:
    train(tmp_path, 1, stopped=True)
    path = tmp_path / "checkpoints/step-000003"
    assert Checkpoint.open(path).extra["evaluation_owed"]
    weights = Checkpoint.open(path).files["weights.safetensors"]
    train(tmp_path, 2, stopped=True, resume=path)
    assert Checkpoint.open(path).files["weights.safetensors"] == weights
    trainer = train(tmp_path, 3, stopped=False, resume=path)
    assert [line["step"] for line in trainer.state.log_history if "eval_loss" in line] == [STEPS]


def test_a_checkpoint_of_the_same_step_by_an_earlier_attempt_is_replaced(tmp_path: Path) -> None:
    never_before: dict[str, Any] = {"save_steps": 100, "max_steps": 2 * STEPS}
    train(tmp_path, 1, stopped=True, **never_before)
    train(tmp_path, 2, stopped=True, learning_rate=1e-3, **never_before)  # from step 0
    found = Checkpoint.open(tmp_path / "checkpoints/step-000003")
    assert (found.step, found.attempt) == (STEPS, 2)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_step_is_saved_again_only_where_its_checkpoint_is_of_no_use(
    tmp_path: Path, damaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, saves = train(tmp_path, 1, stopped=True), []
    checkpointer = trainer.parts.checkpointer
    assert isinstance(checkpointer, RunFolderCheckpointer)
    monkeypatch.setattr(checkpointer, "save", lambda trainer: saves.append(trainer.state.global_step))
    if damaged:
        (tmp_path / "checkpoints/step-000003/manifest.json").write_text("{")
    checkpointer.save_before_leaving(trainer)
    assert saves == [STEPS] * damaged


@pytest.mark.parametrize("strategy", ["no", "epoch"])
def test_a_run_without_regular_checkpoints_leaves_one_of_its_last_step(tmp_path: Path, strategy: str) -> None:
    trainer = train(tmp_path, 1, stopped=False, save_strategy=strategy, eval_strategy="no")
    session: Any = SimpleNamespace(
        trainer=trainer, checkpointer=trainer.parts.checkpointer, stopping=GracefulStop(Interruption())
    )
    with pytest.raises(StoppedEarly):
        leave(session)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]
    resumed = train(tmp_path, 2, stopped=False, resume=tmp_path / "checkpoints/step-000003", eval_strategy="no")
    assert (resumed.state.global_step, resumed.parts.step.meter.steps) == (STEPS, 0)


def train_to_best(folder: Path, steps: int, scores: Iterator[float], resume: Path | None = None) -> Trainer:
    """Train to step `steps`, with an evaluation and a checkpoint of each, and load the best one by `scores`."""
    values = BASE | {"max_steps": steps, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    values |= {"save_steps": 1, "load_best_model_at_end": True, "metric_for_best_model": "score"}
    arguments = transformers.TrainingArguments(str(folder), **values, greater_is_better=True)
    parts: dict[str, Any] = {"checkpointer": RunFolderCheckpointer(Attempt(folder / "checkpoints", "identity", 1, 1))}
    data_sets = {"train_dataset": data(12), "eval_dataset": data(4)}
    metrics: Any = lambda found: {"score": next(scores)}  # noqa: E731  # one line of the test
    trainer = Trainer(model(), arguments, **data_sets, compute_metrics=metrics, **parts)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def test_the_best_model_so_far_may_lie_in_the_folder_of_another_run(tmp_path: Path) -> None:
    scores = iter([3.0, 2.0, 1.0])
    train_to_best(tmp_path / "one", 2, scores)
    trainer = train_to_best(tmp_path / "two", 3, scores, tmp_path / "one/checkpoints/step-000002")
    best = tmp_path / "one/checkpoints/step-000001"
    assert (trainer.state.best_global_step, trainer.state.best_model_checkpoint) == (1, str(best))
    saved = Checkpoint.open(best).load_state().weights
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(weight, saved[name]), name


def test_the_best_model_is_found_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    scores = iter([3.0, 2.0])
    train_to_best(tmp_path / "one", 2, scores)
    (tmp_path / "one").rename(tmp_path / "two")
    trainer = train_to_best(tmp_path / "two", 2, scores, tmp_path / "two/checkpoints/step-000002")
    saved = Checkpoint.open(tmp_path / "two/checkpoints/step-000001").load_state().weights
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(weight, saved[name]), name
