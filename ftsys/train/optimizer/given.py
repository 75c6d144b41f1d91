"""Refuses an optimizer or a schedule of a script's own on which an argument of ours would have no effect."""

from transformers import Trainer

from ftsys.train.trainer.arguments import setting


def check_given(trainer: Trainer) -> None:
    """Look at what the constructor was given as `optimizers`.

    Raises:
        ValueError: an optimizer together with `layer_decay`, or a schedule together with `master_weights`.
    """
    decay = setting(trainer.args, "layer_decay")
    if trainer.optimizer is not None and decay < 1:
        raise ValueError(
            f"layer_decay={decay!r} sets the rates of the optimizer that the Trainer makes, and optimizers= gives "
            "another one: set the rates of its groups yourself, or leave it out"
        )
    if trainer.lr_scheduler is not None and setting(trainer.args, "master_weights"):
        raise ValueError(
            "master_weights=True replaces the optimizer, and the schedule in optimizers= would set the rates of the "
            "old one: leave the schedule out, or write bf16=True in place of master_weights=True"
        )
