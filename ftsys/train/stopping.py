"""All ranks stop after the same step, or between the same two pieces of work, once one of them was told to."""

from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.train.signals import Interruption


class Stopping(TrainerCallback):
    """Turns an Interruption into a checkpoint and the end of training."""

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption
        self.agreed = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From here on a signal waits until the ranks are asked."""
        self.interruption.deferred = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask all ranks; the first one that was told to stop stops all."""
        if self.ask(args):
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
        """Whether any rank was told to stop. Collective."""
        flag = torch.tensor([int(self.interruption.received is not None)], dtype=torch.int32, device=args.device)
        if args.world_size > 1:
            distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
        self.agreed = self.agreed or bool(flag.item())
        return self.agreed

    def leave_if_asked(self, args: TrainingArguments) -> None:
        """Raise StoppedEarly on every rank if any was told to stop. Collective."""
        if self.ask(args):
            raise self.interruption.error()
