"""Stops all ranks after the same step, or between the same two phases of a run, once one of them was told to stop.

On GPUs the ranks' agreement is read one step after it was made, so that no host waits for its device.
"""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.distributed import MaxOverRanks, all_gather_json, rank
from ftsys.errors import FtsysError, error_as_words, error_from_words
from ftsys.train.fault_tolerance.signals import Interruption
from ftsys.train.perf.host_copies import HostCopy

FAILING = 1000
"""Added to the exit status of a rank's error.

One number then says all: 0 to continue, 1 to stop, FAILING + s to fail with exit status s.
"""


class GracefulStop(TrainerCallback):
    """Turns an `Interruption` into a checkpoint and the end of training, on all ranks at the same step.

    The ranks agree by one asynchronous all-reduce (maximum) of one int32 per step.
    """

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption
        self.agreed = False
        self.evaluation_owed = False
        self._failure: FtsysError | None = None
        self._pending: MaxOverRanks | None = None
        self._unread: HostCopy | None = None
        """The agreement of the step before, on GPUs."""

    def fail(self, error: FtsysError) -> None:
        """End the run on all ranks with `error`, at the next agreement.

        If this rank raised the error here, the other ranks would wait for it in a collective.
        """
        self._failure = self._failure or error

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Defer signals from here on, until the ranks agree."""
        self.interruption.deferred = True

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the all-reduce; it runs while the weights are updated."""
        self._start_agreement(args)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop training if any rank was told to stop: in this step, or on GPUs by the end of the step before."""
        if self._pending is None:
            self._start_agreement(args)
        if self._finish_agreement() if args.device.type == "cpu" else self._finish_former_agreement():
            ends_epoch = args.eval_strategy == "epoch" and float(state.epoch or 0.5).is_integer()
            self.evaluation_owed = control.should_evaluate or ends_epoch  # the next attempt starts with it
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start nothing more after a stop: the checkpoint is already written."""
        if self.agreed:
            control.should_save = control.should_evaluate = control.should_log = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Agree once more, for a signal that came during the last evaluation or save."""
        self.agree(args)

    def agree(self, args: TrainingArguments) -> bool:
        """Return True if any rank was told to stop. Collective.

        Raises:
            FtsysError: `fail` was called on any rank; every rank raises.
        """
        if self._pending is not None:  # an exception ended the step between the two callbacks
            self._finish_agreement()
        unread, self._unread = self._unread, None
        if unread is not None:
            self._take(int(unread.read()))
        self._start_agreement(args)
        return self._finish_agreement()

    def _start_agreement(self, args: TrainingArguments) -> None:
        own = FAILING + self._failure.exit_status if self._failure else int(self.interruption.wanted)
        self._pending = MaxOverRanks(own, args.device)

    def _finish_agreement(self) -> bool:
        assert self._pending is not None
        pending, self._pending = self._pending, None
        return self._take(pending.wait())

    def _finish_former_agreement(self) -> bool:
        """Read the step before, and have the device send this one; a single rank has nothing to send."""
        assert self._pending is not None
        reduced = self._pending.reduced()
        if reduced is None:
            return self._finish_agreement()
        self._pending = None
        former, self._unread = self._unread, HostCopy(reduced)
        return self.agreed if former is None else self._take(int(former.read()))

    def _take(self, highest: int) -> bool:
        if highest >= FAILING:
            raise self._agreed_failure(highest - FAILING)
        self.agreed = self.agreed or bool(highest)
        return self.agreed

    def _agreed_failure(self, exit_status: int) -> FtsysError:
        """Return the error that all ranks raise: of those with the agreed exit status, that of the lowest rank.

        Collective: the ranks have learned of the failure in the same agreement, so all of them get here.
        """
        own = self._failure
        told = all_gather_json(None if own is None else [own.exit_status, *error_as_words(own)])
        lowest = next(number for number, each in enumerate(told) if each is not None and each[0] == exit_status)
        error = own if own is not None and lowest == rank() else error_from_words(*told[lowest][1:])
        error.exit_status, error.told = exit_status, True
        return error
