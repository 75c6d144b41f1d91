"""Predicts the disk space that a run takes: its checkpoints and its model."""

from ftsys.config import RunConfig
from ftsys.config.schema import TrainSection

CHECKPOINT_BYTES = 12
"""Bytes of a parameter in a checkpoint: its weight and two moments, in fp32."""

MODEL_BYTES = 4
"""Bytes of a parameter in the model that the run writes at its end."""


def most_checkpoints(train: TrainSection) -> int:
    """Return how many checkpoints exist at once: those that are kept, the best one, and the one being written."""
    if train.save_every == "never":
        return 0
    return train.save_keep + (0 if train.eval_every == "never" else 1) + 1


def checkpoint_bytes(parameters: int, frozen: int = 0) -> int:
    """Return the bytes of a checkpoint: weights, and moments of those that are trained."""
    return CHECKPOINT_BYTES * (parameters - frozen) + MODEL_BYTES * frozen


def bytes_at_most(run: RunConfig, parameters: int, frozen: int = 0) -> int:
    """Return the bytes of all checkpoints that exist at once, and of the model. `frozen` weights have no moments."""
    return checkpoint_bytes(parameters, frozen) * most_checkpoints(run.train) + MODEL_BYTES * parameters


def bytes_at_least(run: RunConfig, parameters: int, frozen: int = 0) -> int:
    """Return the bytes without which the run cannot end; arguments as of `bytes_at_most`.

    That is the model and two checkpoints, since an old one is removed when the next is complete; without moments where
    the optimizer is none of Adam's.
    """
    adam = "adam" in str(run.trainer.get("optim", "adamw"))
    checkpoint = CHECKPOINT_BYTES if adam else MODEL_BYTES
    held = checkpoint * (parameters - frozen) + MODEL_BYTES * frozen
    return held * min(2, most_checkpoints(run.train)) + MODEL_BYTES * parameters


def size_text(count: int) -> str:
    """Return a number of bytes for people, such as "1.2 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
