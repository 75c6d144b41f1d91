"""What the HF Trainer tells while it runs, turned into metrics.jsonl, a progress bar and status.json. Rank 0 only."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.errors import FtsysError
from ftsys.report.progress import Progress, SplitProgress
from ftsys.run_folder.metrics_log import MetricsWriter, lines_from_logs, read_metrics
from ftsys.run_folder.status import check_still_ours, write_status

__all__ = ["MetricsLog", "ProgressCallback", "StatusCallback", "read_metrics"]

OnError = Callable[[FtsysError], None]
"""Told of an error of rank 0 alone, instead of raising it: the other ranks must hear of it before rank 0 leaves."""

STATUS_SECONDS = 5.0
"""status.json is written no more often than this, in seconds, while a run goes on."""


@contextmanager
def _handed_on(on_error: OnError | None) -> Iterator[None]:
    try:
        yield
    except FtsysError as error:
        if on_error is None:
            raise
        on_error(error)


class MetricsLog(TrainerCallback):
    """Appends what the Trainer logs to OUTPUT_DIR/metrics.jsonl, on rank 0."""

    def __init__(
        self,
        output_dir: Path | str,
        attempt: int,
        splits: Sequence[str] = ("validation",),
        on_error: OnError | None = None,
    ) -> None:
        """`splits` are the names of the evaluation splits, the one that stands without its name first."""
        self.on_error = on_error
        self.path, self.attempt, self.splits = Path(output_dir) / "metrics.jsonl", attempt, tuple(splits)
        self._writer: MetricsWriter | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the step that this life goes on from."""
        self._writer = MetricsWriter(self.path, self.attempt, resumed_at=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the lines. Raises StorageError, or hands it to `on_error`."""
        if not state.is_world_process_zero:
            return
        if self._writer is None:  # an evaluation without training
            self._writer = MetricsWriter(self.path, self.attempt, resumed_at=state.global_step)
        with _handed_on(self.on_error):
            for line in lines_from_logs(logs or {}, self.splits):
                self._writer.write(line, step=state.global_step, epoch=state.epoch)


class ProgressCallback(TrainerCallback):
    """Shows training and evaluation; stands in for transformers' own ProgressCallback and PrinterCallback.

    Give `evaluation` to whatever evaluates: it is called with (split, rows done, rows in all). Call `close` when
    training ends by an exception, or the terminal keeps an unfinished bar.
    """

    def __init__(
        self,
        enabled: bool | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Arguments as of `Progress`."""
        self._options: dict[str, Any] = {"enabled": enabled, "stream": stream, "clock": clock}
        self._clock = clock
        self._train: Progress | None = None
        self._evaluate: SplitProgress | None = None
        self._paused_at: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step that training goes on from."""
        self._train = Progress("train", state.max_steps, "steps", initial=state.global_step, **self._options)
        self._train.__enter__()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave an evaluation or a save since the last step out of the rate."""
        if self._train is not None and self._paused_at is not None:
            self._train.skip(self._clock() - self._paused_at)
        self._paused_at = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar; remember when an evaluation or a save begins."""
        if self._train is not None:
            self._train.update(state.global_step)
        self._pause(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember when an evaluation or a save begins."""
        self._pause(control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the training loss and the token rate from now on."""
        shown = {"loss": "loss", "real_tokens_per_s": "tokens/s"}
        figures = {name: logs[key] for key, name in shown.items() if logs and key in logs}
        if self._train is not None and figures:
            self._train.update(self._train.done, **figures)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Finish the evaluation's bar and say its figures."""
        self._end_evaluation()
        quiet = ("runtime", "per_second", "compilation_time", "epoch")
        figures = {key: value for key, value in (metrics or {}).items() if not key.endswith(quiet)}
        if self._train is not None and figures:
            told = ", ".join(
                f"{key.removeprefix('eval_').replace('_', ' ')} {_figure(figures[key])}" for key in figures
            )
            self._train.say(f"evaluated at step {state.global_step:,}: {told}")

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Finish the prediction's bar."""
        self._end_evaluation()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finish the bar."""
        self.close()

    def evaluation(self, split: str, done: int, total: int | None) -> None:
        """Say that `done` of `total` rows of `split` are evaluated."""
        if self._evaluate is None:
            self._evaluate = SplitProgress("evaluate", **self._options).__enter__()
        self._evaluate(done, total, split)

    def close(self) -> None:
        """Finish whatever is open. May be called at any time, any number of times."""
        self._end_evaluation()
        if self._train is not None:
            self._train.__exit__(None, None, None)
        self._train = None

    def _pause(self, control: TrainerControl) -> None:
        if self._paused_at is None and (control.should_evaluate or control.should_save):
            self._paused_at = self._clock()
        if control.should_evaluate and self._evaluate is None:  # its clock starts now, its first line comes later
            self._evaluate = SplitProgress("evaluate", **self._options).__enter__()

    def _end_evaluation(self) -> None:
        if self._evaluate is not None:
            self._evaluate.__exit__()
        self._evaluate = None


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
            with _handed_on(self.on_error):
                check_still_ours(self.output_dir, self.attempt)
                write_status(self.output_dir, "running", None, "", phase, state.global_step, self.attempt)
            self._written_at = self._clock()


def _next_phase(control: TrainerControl) -> str:
    return "evaluate" if control.should_evaluate else "save" if control.should_save else "train"


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
