"""Signals that end a run early: before training at once, during training after the step that all ranks agree on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.errors import StoppedEarly

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopping(TrainerCallback):
    """Remembers a signal and makes all ranks stop after the same step, with a checkpoint."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.agreed = False
        self._training = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle SIGNALS inside the block. Outside training they raise StoppedEarly where the program stands."""
        former = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self._training:
            raise self.error()

    def error(self) -> StoppedEarly:
        """What the run ends with."""
        by = f"by {self.received.name}" if self.received else "by a signal to another rank"
        return StoppedEarly(f"stopped {by}; everything on disk is complete: start the same command again to go on.")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From here on a signal waits for the end of a step."""
        self._training = True
        self._flag = torch.zeros(1, dtype=torch.int32, device=args.device)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask all ranks; the first one that was told to stop stops all."""
        self._flag.fill_(int(self.received is not None))
        if args.world_size > 1:
            distributed.all_reduce(self._flag, op=distributed.ReduceOp.MAX)
        if self._flag.item():
            self.agreed = True
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
        """A signal ends the program at once again."""
        self._training = False
