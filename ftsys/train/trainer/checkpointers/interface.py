"""Defines the interface of a checkpointer, through which the Trainer saves and resumes."""

from typing import Any, Protocol

from transformers import Trainer


class Checkpointer(Protocol):
    """Decides where a Trainer's checkpoints lie and how they are written. Every rank calls every method."""

    def checkpoint_to_resume(self, trainer: Trainer, asked: Any) -> Any:
        """Return the checkpoint folder for `asked`, the `resume_from_checkpoint` of `train`.

        Raises CheckpointError for a damaged one.
        """
        ...

    def begin_training(self, trainer: Trainer) -> None:
        """Be called before the first step, after the state of a checkpoint is there."""
        ...

    def save(self, trainer: Trainer, trial: Any) -> bool:
        """Save the present step. Returns False, with nothing written, where the stock Trainer must save it."""
        ...

    def before_update(self) -> None:
        """Be called before the optimizer changes the weights: copies of the last save may still be under way."""
        ...

    def load_best(self, trainer: Trainer) -> bool:
        """Load the best model into the engine. Returns False, with nothing loaded, where the stock Trainer must."""
        ...

    def finish(self) -> None:
        """Return once the last checkpoint is on the disk. Raises the error of a save that failed."""
        ...
