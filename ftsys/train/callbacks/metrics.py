"""Writes training and evaluation metrics into the run folder's metrics log."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.run_folder.layout import METRICS_LOG
from ftsys.run_folder.metrics_log import MetricsWriter, lines_from_logs
from ftsys.train.callbacks.on_error import OnError, handed_on

LINES_KEPT = 1000
"""Newest lines of training, and of evaluations, in the Trainer's own history, at least. metrics.jsonl has all."""


def shorten(history: list[dict[str, Any]]) -> None:
    """Take older lines of training and of evaluations out of the Trainer's history.

    Every rank holds the history, and every checkpoint writes all of it.
    """
    if len(history) < 2 * LINES_KEPT:
        return
    older: set[int] = set()
    for key in ("loss", "eval_"):  # a line of training has "loss", one of an evaluation "eval_loss" or "eval_mnli_loss"
        lines = [number for number, line in enumerate(history) if any(name.startswith(key) for name in line)]
        older.update(lines[:-LINES_KEPT] if len(lines) >= 2 * LINES_KEPT else ())
    if older:
        history[:] = [line for number, line in enumerate(history) if number not in older]


class MetricsLog(TrainerCallback):
    """Appends the values that the Trainer logs to RUN_DIR/metrics.jsonl, on rank 0."""

    def __init__(
        self,
        output_dir: Path | str,
        attempt: int,
        splits: Sequence[str] = ("validation",),
        on_error: OnError | None = None,
    ) -> None:
        """Write to RUN_DIR/metrics.jsonl as attempt number `attempt`.

        `splits` are the evaluation splits. The metrics of the first one are logged without the split's name.
        """
        self.on_error = on_error
        self.path, self.attempt, self.splits = Path(output_dir) / METRICS_LOG, attempt, tuple(splits)
        self._writer: MetricsWriter | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the step that this attempt resumes from."""
        self._writer = MetricsWriter(self.path, self.attempt, resumed_at=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the lines. Raises StorageError, or passes it to `on_error`."""
        shorten(state.log_history)
        if not state.is_world_process_zero:
            return
        if self._writer is None:  # an evaluation without training
            self._writer = MetricsWriter(self.path, self.attempt, resumed_at=state.global_step)
        with handed_on(self.on_error):
            for line in lines_from_logs(logs or {}, self.splits):
                self._writer.write(line, step=state.global_step, epoch=state.epoch)
