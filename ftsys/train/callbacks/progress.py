"""Shows the progress of training and evaluation as a bar or as lines, on rank 0."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.report.progress import Progress, SplitProgress


class ProgressCallback(TrainerCallback):
    """Shows training and evaluation; replaces transformers' own ProgressCallback and PrinterCallback.

    Pass the method `evaluation` to the code that evaluates, which calls it with (split, rows done, total rows). Call
    `close` when training ends by an exception; otherwise the terminal keeps an unfinished bar.
    """

    def __init__(
        self,
        enabled: bool | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the arguments of `Progress`."""
        self._options: dict[str, Any] = {"enabled": enabled, "stream": stream, "clock": clock}
        self._clock = clock
        self._train: Progress | None = None
        self._evaluate: SplitProgress | None = None
        self._paused_at: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step that training resumes from."""
        self._train = Progress("train", state.max_steps, "steps", initial=state.global_step, **self._options)
        self._train.__enter__()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Exclude the time of an evaluation or a save since the last step from the rate."""
        if self._train is not None and self._paused_at is not None:
            self._train.skip(self._clock() - self._paused_at)
        self._paused_at = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar; record when an evaluation or a save begins."""
        if self._train is not None:
            self._train.update(state.global_step)
        self._pause(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record when an evaluation or a save begins."""
        self._pause(control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the latest training loss and token rate in the bar."""
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
        """Finish the evaluation's bar and print its metrics."""
        self._end_evaluation()
        hidden = ("runtime", "per_second", "compilation_time", "epoch")
        figures = {key: value for key, value in (metrics or {}).items() if not key.endswith(hidden)}
        if self._train is not None and figures:
            text = ", ".join(
                f"{key.removeprefix('eval_').replace('_', ' ')} {_figure(figures[key])}" for key in figures
            )
            self._train.say(f"evaluated at step {state.global_step:,}: {text}")

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
        """Show that `done` of `total` rows of `split` are evaluated."""
        if self._evaluate is None:
            self._evaluate = SplitProgress("evaluate", **self._options).__enter__()
        self._evaluate(done, total, split)

    def close(self) -> None:
        """Finish all open bars. May be called at any time, any number of times."""
        self._end_evaluation()
        if self._train is not None:
            self._train.__exit__(None, None, None)
        self._train = None

    def _pause(self, control: TrainerControl) -> None:
        if self._paused_at is None and (control.should_evaluate or control.should_save):
            self._paused_at = self._clock()
        if control.should_evaluate and self._evaluate is None:  # starts its clock now; it prints its first line later
            self._evaluate = SplitProgress("evaluate", **self._options).__enter__()

    def _end_evaluation(self) -> None:
        if self._evaluate is not None:
            self._evaluate.__exit__()
        self._evaluate = None


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
