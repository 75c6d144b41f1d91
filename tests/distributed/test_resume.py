"""A run cut at a checkpoint and resumed is the uninterrupted run, bit for bit on the same world."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.tiny_run import make_store, make_trainer, tiny_bert
from tests.distributed.worlds import World

STEPS, CUT_AT = 7, 4  # the epoch has five steps: cut within the first, ended within the second


def train_part(store: Path, scratch: Path, options: dict[str, Any], stop: int | None, resume: bool) -> dict[str, Any]:
    """Train to step `stop` or to the end, from the newest checkpoint if `resume`; returns losses and weights."""
    from transformers import TrainerCallback

    from ftsys.train.checkpoint.catalog import newest_checkpoint
    from ftsys.train.checkpoint.state_dict import export_state
    from ftsys.train.optimizer.master_adamw import masters_of
    from ftsys.train.trainer.checkpointers.run_folder import Attempt, RunFolderCheckpointer

    class StopAt(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == stop:
                control.should_training_stop = True

    settings: dict[str, Any] = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 2} | options
    if dropout := settings.pop("dropout", 0.0):
        settings["model"] = tiny_bert(dropout=dropout)
    checkpointer = RunFolderCheckpointer(Attempt(scratch / "checkpoints", "identity", 1, keep=2))
    trainer = make_trainer(store, scratch, checkpointer=checkpointer, **settings)
    trainer.add_callback(StopAt())
    found = newest_checkpoint(scratch / "checkpoints", "identity", 1) if resume else None
    trainer.train(resume_from_checkpoint=None if found is None else str(found.path))
    losses = {line["step"]: line["loss"] for line in trainer.state.log_history if "loss" in line}
    weights = export_state(trainer.model_wrapped, masters_of(trainer.optimizer)).weights
    return {"losses": losses, "weights": weights, "step": trainer.state.global_step}


@pytest.mark.parametrize(
    ("ranks", "stage", "precision"),
    [
        (1, None, "fp32"),
        (2, None, "bf16"),
        (2, 2, "bf16"),
        (3, None, "fp32"),
        (3, 0, "fp32"),
        (3, 2, "fp32"),
        (3, 3, "fp32"),
    ],
)
def test_a_resumed_run_is_bit_identical(
    world: Callable[[int], World], tmp_path: Path, ranks: int, stage: int | None, precision: str
) -> None:
    store = make_store(tmp_path / "stores")
    options = {"stage": stage, "precision": precision, "micro_tokens": 60}
    whole = world(ranks).run(train_part, store, tmp_path / "whole", dict(options), None, False)[0]
    world(ranks).run(train_part, store, tmp_path / "cut", dict(options), CUT_AT, False)
    resumed = world(ranks).run(train_part, store, tmp_path / "cut", dict(options), None, True)[0]
    assert resumed["step"] == STEPS
    assert resumed["losses"] == whole["losses"]
    assert all(torch.equal(resumed["weights"][name], tensor) for name, tensor in whole["weights"].items())


def test_a_run_goes_on_with_other_ranks_and_another_stage(world: Callable[[int], World], tmp_path: Path) -> None:
    store = make_store(tmp_path / "stores")
    whole = world(1).run(train_part, store, tmp_path / "whole", {"micro_tokens": 60}, None, False)[0]
    world(2).run(train_part, store, tmp_path / "cut", {"stage": 2, "micro_tokens": 60}, CUT_AT, False)
    resumed = world(3).run(train_part, store, tmp_path / "cut", {"stage": 3, "micro_tokens": 500}, None, True)[0]
    assert resumed["losses"] == pytest.approx(whole["losses"], rel=1e-5)


def test_masters_of_our_own_and_of_deepspeed_take_each_other_over(
    world: Callable[[int], World], tmp_path: Path
) -> None:
    store, bf16 = make_store(tmp_path / "stores"), {"precision": "bf16", "micro_tokens": 60}
    whole = world(2).run(train_part, store, tmp_path / "whole", {**bf16}, None, False)[0]
    world(2).run(train_part, store, tmp_path / "cut", {**bf16, "stage": 1}, CUT_AT, False)
    resumed = world(1).run(train_part, store, tmp_path / "cut", {**bf16}, None, True)[0]
    assert resumed["losses"] == pytest.approx(whole["losses"], rel=2e-2)
    assert {tensor.dtype for tensor in resumed["weights"].values()} == {torch.float32}


def first_steps(store: Path, scratch: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What the optimizer counts after two steps, and how far the masters were from float32 before the first."""
    from ftsys.train.checkpoint.state_dict import export_state
    from tests.distributed.tiny_run import tiny_bert

    trainer = make_trainer(store, scratch, **options, max_steps=2, learning_rate=0.0)
    trainer.train()
    state = export_state(trainer.model_wrapped, trainer.optimizer)
    exact = {name: tensor.detach() for name, tensor in tiny_bert().named_parameters()}
    return {
        "steps": {numbers["step"] for numbers in state.numbers.values()},
        "rounded": [name for name, tensor in state.weights.items() if not torch.equal(tensor, exact[name])],
    }


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_starts_from_float32_weights_and_no_step(
    world: Callable[[int], World], tmp_path: Path, stage: int
) -> None:
    store = make_store(tmp_path / "stores")
    found = world(2).run(first_steps, store, tmp_path, {"stage": stage, "precision": "bf16"})[0]
    assert found == {"steps": {2.0}, "rounded": []}


def stop_at_an_epochs_end(store: Path, scratch: Path, attempt: int, in_evaluation: bool) -> dict[str, Any]:
    """Signal the first attempt in the last step of the epoch, or in the evaluation after it; the second continues."""
    import os
    import signal

    from transformers import TrainerCallback

    from ftsys.train.callbacks.graceful_stop import GracefulStop
    from ftsys.train.checkpoint.catalog import newest_checkpoint
    from ftsys.train.fault_tolerance.signals import Interruption
    from ftsys.train.session import run_hooks, train_until_stopped
    from ftsys.train.trainer.checkpointers.run_folder import Attempt, RunFolderCheckpointer

    class Signal(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 4 and not in_evaluation:
                self.send(args)

        def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if in_evaluation:
                self.send(args)

        def send(self, args: Any) -> None:
            if args.process_index == 1:  # one rank of the two
                os.kill(os.getpid(), signal.SIGTERM)

    interruption = Interruption()
    stopping = GracefulStop(interruption)
    every_epoch = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    hooks = run_hooks(stopping)
    checkpointer = RunFolderCheckpointer(Attempt(scratch / "checkpoints", "identity", attempt, keep=2), hooks)
    parts = {"checkpointer": checkpointer, "hooks": hooks}
    trainer = make_trainer(store, scratch, max_steps=STEPS, micro_tokens=30, **every_epoch, **parts)
    trainer.add_callback(stopping)
    if attempt == 1:
        trainer.add_callback(Signal())
    found = newest_checkpoint(scratch / "checkpoints", "identity", attempt)
    with interruption.watching():
        train_until_stopped(trainer, checkpointer, stopping, None if found is None else str(found.path))
    evaluated = [line["step"] for line in trainer.state.log_history if "eval_loss" in line]
    return {"stopped": stopping.agreed, "step": trainer.state.global_step, "evaluated": evaluated}


@pytest.mark.parametrize("in_evaluation", [False, True])
def test_a_stop_at_the_end_of_an_epoch_loses_no_evaluation(
    world: Callable[[int], World], tmp_path: Path, in_evaluation: bool
) -> None:
    store = make_store(tmp_path / "stores")
    attempts = (world(2).run(stop_at_an_epochs_end, store, tmp_path, attempt, in_evaluation) for attempt in (1, 2))
    first, second = attempts
    assert first == [{"stopped": True, "step": 5, "evaluated": []}] * 2
    assert second == [{"stopped": False, "step": STEPS, "evaluated": [5, STEPS]}] * 2


RANK_FAILURES = [
    ({0: ("RunFolderError", "a newer attempt has begun")}, ("RunFolderError", "a newer attempt has begun", 77)),
    ({1: ("StorageError", "the disk is full")}, ("StorageError", "the disk is full", 1)),
    ({0: ("StorageError", "zero"), 1: ("StorageError", "one")}, ("StorageError", "zero", 1)),
    (
        {0: ("StorageError", "gone"), 1: ("RunFolderError", "a newer attempt")},
        ("RunFolderError", "a newer attempt", 77),
    ),
]
"""The errors that ranks meet between two steps, as names and messages by rank; the one that ends all of them."""


def fail_on_ranks(store: Path, scratch: Path, errors: dict[int, tuple[str, str]]) -> tuple[str, str, int]:
    """What each rank leaves with when some ranks meet an error between two steps."""
    from transformers import TrainerCallback

    from ftsys.errors import FtsysError, error_from_words
    from ftsys.train.callbacks.graceful_stop import GracefulStop
    from ftsys.train.fault_tolerance.signals import Interruption

    stopping = GracefulStop(Interruption())

    class Failing(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2 and args.process_index in errors:
                stopping.fail(error_from_words(*errors[args.process_index]))

    trainer = make_trainer(store, scratch)
    trainer.add_callback(Failing())
    trainer.add_callback(stopping)
    try:
        trainer.train()
    except FtsysError as error:
        return type(error).__name__, str(error), error.exit_status
    return "", "trained on", 0


@pytest.mark.parametrize(("errors", "ends"), RANK_FAILURES)
def test_an_error_of_any_rank_ends_all_with_its_words_and_its_status(
    world: Callable[[int], World], tmp_path: Path, errors: dict[int, tuple[str, str]], ends: tuple[str, str, int]
) -> None:
    assert world(2).run(fail_on_ranks, make_store(tmp_path / "stores"), tmp_path, errors) == [ends, ends]


def test_three_attempts_on_three_worlds_follow_one_curve(world: Callable[[int], World], tmp_path: Path) -> None:
    """2 ranks at ZeRO 2, then 3 at ZeRO 0, then 1 at ZeRO 1: fifty steps with dropout on."""
    store = make_store(tmp_path / "stores")
    options = {"max_steps": 50, "save_steps": 17, "micro_tokens": 60, "dropout": 0.1}
    whole = world(2).run(train_part, store, tmp_path / "whole", dict(options), None, False)[0]
    losses: dict[int, float] = {}
    for ranks, stage, stop in ((2, 2, 17), (3, 0, 34), (1, 1, None)):
        cut = (store, tmp_path / "attempts", options | {"stage": stage}, stop, bool(losses))
        losses |= world(ranks).run(train_part, *cut)[0]["losses"]
    assert sorted(losses) == list(range(1, 51))
    assert losses == pytest.approx(whole["losses"], rel=1e-4)
