"""Ends training once the metric that decides about the best evaluation stops improving, over any number of attempts."""

from collections.abc import Mapping
from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.config.schema import EarlyStopping


class EarlyStop(EarlyStoppingCallback):
    """transformers' EarlyStoppingCallback, whose count is a part of the checkpoints.

    It judges each step once: an attempt that begins with an evaluation of the step that it resumes from, which was
    judged before, does not count that one again.
    """

    def __init__(self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0) -> None:
        """Take the arguments of transformers' callback, which are also those of its saved state."""
        super().__init__(early_stopping_patience, early_stopping_threshold)
        self.judged_step = -1

    @classmethod
    def of(cls, wanted: EarlyStopping) -> "EarlyStop":
        """Make the callback of train.early_stopping."""
        return cls(wanted.patience, wanted.threshold)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the count of the checkpoint; end training at once if it had ended there."""
        saved = state.stateful_callbacks.get(type(self).__name__, {})
        for name, value in saved.get("attributes", {}).items():
            setattr(self, name, value)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float],
        **kwargs: Any,
    ) -> None:
        """Judge an evaluation, unless it is of another split than the metric or its step was judged before."""
        wanted = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
        if wanted in metrics and state.global_step != self.judged_step:
            self.judged_step = state.global_step
            super().on_evaluate(args, state, control, metrics, **kwargs)

    def state(self) -> dict[str, Any]:
        """Return transformers' state, with the step that was judged last."""
        state: dict[str, Any] = super().state()
        state["attributes"]["judged_step"] = self.judged_step
        return state
