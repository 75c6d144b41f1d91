"""Keeps status.json up to date while the Trainer runs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.run_folder.attempts import check_still_ours
from ftsys.run_folder.status import write_status
from ftsys.train.callbacks.on_error import OnError, handed_on

STATUS_SECONDS = 5.0
"""status.json is written no more often than this, in seconds, while a run goes on."""


class StatusCallback(TrainerCallback):
    """Keeps status.json at the phase and step of a running run, on rank 0.

    Raises RunFolderError on rank 0, at such a moment, when a newer life has claimed the folder,
    or hands it to `on_error`.
    """

    def __init__(
        self,
        output_dir: Path | str,
        attempt: int,
        clock: Callable[[], float] = time.monotonic,
        on_error: OnError | None = None,
    ) -> None:
        self.on_error = on_error
        self.output_dir, self.attempt = Path(output_dir), attempt
        self._clock = clock
        self._written_at: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say that training begins."""
        self.beat(state, "train", now=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say the step, and what comes next."""
        self.beat(state, _next_phase(control))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say what comes next."""
        self.beat(state, _next_phase(control))

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say that an evaluation is going on."""
        self.beat(state, "evaluate")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say what comes after the evaluation."""
        self.beat(state, "save" if control.should_save else "train")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say that training goes on."""
        self.beat(state, "train")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say the last step, which the run's own last word keeps."""
        self.beat(state, "finish", now=True)

    def beat(self, state: TrainerState, phase: str, now: bool = False) -> None:
        """Write the status unless one was written less than STATUS_SECONDS ago. Raises RunFolderError, StorageError."""
        if not state.is_world_process_zero:
            return
        if now or self._written_at is None or self._clock() - self._written_at >= STATUS_SECONDS:
            with handed_on(self.on_error):
                check_still_ours(self.output_dir, self.attempt)
                write_status(self.output_dir, "running", None, "", phase, state.global_step, self.attempt)
            self._written_at = self._clock()


def _next_phase(control: TrainerControl) -> str:
    return "evaluate" if control.should_evaluate else "save" if control.should_save else "train"
