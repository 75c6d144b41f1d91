"""A tiny training on a fake GPU, step by step: what the tests of this folder share."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

from transformers import PreTrainedModel, TrainerCallback

from ftsys.train.callbacks.graceful_stop import GracefulStop
from ftsys.train.fault_tolerance.signals import Interruption
from tests.distributed.tiny_run import VOCABULARY, make_trainer
from tests.fake_device.modes import Ledger
from tests.parity.models import tiny_models

WARM = 3
"""Steps in which caches are filled: tables of dropout, and the model's dropout sites."""


class WaitsOfSteps(TrainerCallback):
    """Collects the waits of each step, from its begin to its end."""

    def __init__(self, ledger: Ledger, stopping: GracefulStop) -> None:
        self.of_step: list[list[str]] = []
        self.launches: list[int] = []
        self.stopping = stopping
        self._ledger = ledger

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._ledger.waits.clear()
        self._ledger.launches.clear()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.of_step.append(list(self._ledger.waits))
        self.launches.append(self._ledger.launches.total())


def gpu_trainer(store: Path, scratch: Path, ledger: Ledger, **options: Any) -> tuple[Any, WaitsOfSteps]:
    """A trainer of eight examples a step on the fake GPU, with the callbacks that a run has in each step."""
    settings = {"use_cpu": False, "global_size": 8, "logging_steps": 100, "max_steps": 6}
    options = settings | options
    options["global_batch_size"] = options.pop("global_size")
    trainer, waits = make_trainer(store, scratch, **options), WaitsOfSteps(ledger, GracefulStop(Interruption()))
    trainer.add_callback(waits.stopping)
    trainer.add_callback(waits)  # the last one: it sees the waits of all others
    return trainer, waits


def small_model(variant: str) -> PreTrainedModel:
    """A two-layer model of a packed family with its default dropout, for the vocabulary of the tiny store."""
    with patch.dict(tiny_models.SMALL, vocab_size=VOCABULARY, pad_token_id=0):
        model: PreTrainedModel = tiny_models.small_model(variant, 2).float()
    return model
