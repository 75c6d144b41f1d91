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
"""Shortest time between two writes of status.json during a run, in seconds."""


class StatusCallback(TrainerCallback):
    """Writes the phase and step of a running run to status.json, on rank 0.

    Each write first checks the folder's claim. If a newer attempt has claimed the folder, it raises RunFolderError on
    rank 0, or passes the error to `on_error`.
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
        """Write that training begins."""
        self.update(state, "train", now=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the step and the next phase."""
        self.update(state, _next_phase(control))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the next phase."""
        self.update(state, _next_phase(control))

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write that an evaluation is running."""
        self.update(state, "evaluate")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the phase that follows the evaluation."""
        self.update(state, "save" if control.should_save else "train")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write that training continues."""
        self.update(state, "train")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the last step; the final status of the run keeps this number."""
        self.update(state, "finish", now=True)

    def update(self, state: TrainerState, phase: str, now: bool = False) -> None:
        """Write the status, unless the last write is less than STATUS_SECONDS old and `now` is False.

        Raises:
            RunFolderError: a newer attempt has claimed the run folder.
            StorageError: status.json cannot be written.
        """
        if not state.is_world_process_zero:
            return
        if now or self._written_at is None or self._clock() - self._written_at >= STATUS_SECONDS:
            with handed_on(self.on_error):
                check_still_ours(self.output_dir, self.attempt)
                write_status(self.output_dir, "running", None, "", phase, state.global_step, self.attempt)
            self._written_at = self._clock()


def _next_phase(control: TrainerControl) -> str:
    return "evaluate" if control.should_evaluate else "save" if control.should_save else "train"
