"""All ranks stop after the same step, or between the same two pieces of work, once one of them was told to."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.distributed import MaxOverRanks
from ftsys.errors import FtsysError
from ftsys.train.fault_tolerance.signals import Interruption

FAILING = 1000
"""Added to the exit status of a rank's error, so that one number says go on, stop, or fail, and with what."""


class GracefulStop(TrainerCallback):
    """Turns an Interruption into a checkpoint and the end of training."""

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption
        self.agreed = False
        self.evaluation_owed = False
        self._failure: FtsysError | None = None
        self._asked: MaxOverRanks | None = None

    def fail(self, error: FtsysError) -> None:
        """End the run with `error` at the next question, on all ranks: raised here alone, the others would wait."""
        self._failure = self._failure or error

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From here on a signal waits until the ranks are asked."""
        self.interruption.deferred = True

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask all ranks, who meet here anyway; the answer comes while the weights are updated."""
        self._ask(args)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Hear the answer; the first rank that was told to stop stops all."""
        if self._asked is None:
            self._ask(args)
        if self._hear():
            ends_epoch = args.eval_strategy == "epoch" and float(state.epoch or 0.5).is_integer()
            self.evaluation_owed = control.should_evaluate or ends_epoch  # the next life begins with it
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The checkpoint is written already: nothing more is started."""
        if self.agreed:
            control.should_save = control.should_evaluate = control.should_log = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A signal during the last evaluation or save counts too."""
        self.ask(args)

    def ask(self, args: TrainingArguments) -> bool:
        """Whether any rank was told to stop. Collective. Raises on every rank what `fail` was given on any."""
        if self._asked is not None:  # in a step that an exception ended
            self._hear()
        self._ask(args)
        return self._hear()

    def _ask(self, args: TrainingArguments) -> None:
        own = FAILING + self._failure.exit_status if self._failure else int(self.interruption.wanted)
        self._asked = MaxOverRanks(own, args.device)

    def _hear(self) -> bool:
        assert self._asked is not None
        asked, self._asked = self._asked, None
        found = asked.wait()
        if found >= FAILING:
            raise self._failure or _failure_elsewhere(found - FAILING)
        self.agreed = self.agreed or bool(found)
        return self.agreed

    def leave_if_asked(self, args: TrainingArguments) -> None:
        """Raise StoppedEarly on every rank if any was told to stop. Collective."""
        if self.ask(args):
            raise self.interruption.error()


def _failure_elsewhere(exit_status: int) -> FtsysError:
    """What a rank leaves with when another one's error, which says why, ended the run."""
    error = FtsysError("another rank ended the run")
    error.exit_status = exit_status
    return error
