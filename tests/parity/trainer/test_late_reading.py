"""Tests that a bad step which the host learns of one step late leaves no trace: weights and schedule are the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from ftsys.data.batching.plan import plan_epoch
from ftsys.errors import FtsysError
from ftsys.train.trainer import training_step
from tests.distributed.tiny_run import make_store, make_trainer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores"))


@contextmanager
def spoiled_losses(trainer: Any, step: int, global_size: int, always: bool = False) -> Iterator[None]:
    """Make the loss of one example of epoch 0's `step` infinite, or `always` those of all."""
    spoiled = int(plan_epoch(trainer.train_dataset.lengths, 3, 0, global_size=global_size).step(step)[0])
    honest = training_step.loss_per_example

    def dishonest(logits_SC: torch.Tensor, labels: torch.Tensor, ids_S: torch.Tensor, *more: Any) -> torch.Tensor:
        hit = (ids_S == spoiled) | always
        return honest(logits_SC, labels, ids_S, *more) + torch.where(hit, float("inf"), 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_step, "loss_per_example", dishonest)
        yield


def train_spoiled(store: Path, scratch: Path, always: bool = False, **options: Any) -> Any:
    """Train five steps, of which the second is bad, or `always` all of them."""
    trainer = make_trainer(store, scratch, **options)
    with spoiled_losses(trainer, 1, 10, always):
        trainer.train()
    return trainer


OPTIONS: list[dict[str, Any]] = [
    {"precision": "fp32"},
    {"precision": "bf16"},
    {"precision": "bf16", "max_grad_norm": 0.0},
    {"precision": "fp32", "optim": "sgd"},  # its update is not fused: the host reads the norm before it
    {"precision": "fp32", "lr_scheduler_type": "cosine", "warmup_steps": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_read_late_or_at_once_is_the_same(store: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    at_once, late = (train_spoiled(store, tmp_path / str(every), logging_steps=every, **options) for every in (1, 100))
    for name, weight in at_once.model.state_dict().items():
        assert torch.equal(weight, late.model.state_dict()[name]), name
    assert late.lr_scheduler.state_dict() == at_once.lr_scheduler.state_dict()
    assert late.lr_scheduler.last_epoch == 4  # of five steps one is skipped
    lines = [line for line in at_once.state.log_history if "loss" in line]
    assert [line.get("skipped_steps") for line in lines] == [None, 1, None, None, None]


def test_the_rate_of_the_step_behind_a_bad_one_is_its_own(store: Path, tmp_path: Path) -> None:
    trainer = train_spoiled(store, tmp_path, logging_steps=1)
    rates = [line["learning_rate"] for line in trainer.state.log_history if "loss" in line]
    assert rates[1] == rates[2] > rates[3]


def test_too_many_bad_steps_end_the_run_one_step_late(store: Path, tmp_path: Path) -> None:
    with pytest.raises(FtsysError, match=r"step 3: .* makes 3 steps in a row"):
        train_spoiled(store, tmp_path, always=True, logging_steps=100, max_nonfinite_steps=2)


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
def test_a_line_that_is_logged_before_the_update_changes_nothing(
    store: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    class Logs(TrainerCallback):
        def on_pre_optimizer_step(self, *event: Any, **more: Any) -> None:
            logging.log({"own": 1.0})

    plain, logging = (make_trainer(store, tmp_path / name, **options) for name in ("plain", "logging"))
    logging.add_callback(Logs())
    for trainer in (plain, logging):
        with spoiled_losses(trainer, 1, 10):
            trainer.train()
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, logging.model.state_dict()[name]), name
    assert logging.lr_scheduler.state_dict() == plain.lr_scheduler.state_dict()
    lines = [line for line in logging.state.log_history if "loss" in line]
    assert [line.get("skipped_steps") for line in lines] == [None, 1, None, None, None]
