"""Restores a training from a checkpoint of this project's format, whichever checkpointer wrote it."""

import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NotRequired

import transformers
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_callback import ExportableState, TrainerState
from typing_extensions import TypedDict

from ftsys.errors import CheckpointError
from ftsys.files.untrusted import typed
from ftsys.run_folder.layout import TRAINER_STATE
from ftsys.train.checkpoint.catalog import Checkpoint
from ftsys.train.checkpoint.files import read_json
from ftsys.train.checkpoint.manifest import MODEL, STATE
from ftsys.train.checkpoint.optimizer_layout import frozen_weights
from ftsys.train.checkpoint.rng_state import RngState, write_rng_state
from ftsys.train.checkpoint.state_dict import FullState, import_state
from ftsys.train.checkpoint.training_state import TrainerFacts

_LOG = logging.getLogger("ftsys")
RNG_STATES = "rng.json"


def is_ours(checkpoint: Any) -> bool:
    """Return True for a checkpoint folder of this project's format, False for a stock one and for None."""
    return isinstance(checkpoint, str | Path) and (Path(checkpoint) / "manifest.json").exists()


def refuse_unknown_keys(checkpoint: Any) -> None:
    """Raise CheckpointError where a checkpoint of ours has a Trainer's state with keys that this transformers lacks.

    transformers reads the file itself, so a key cannot be left out. Such a checkpoint is whole, and a run must not skip
    it: it would train again what an installation of the right version goes on from.
    """
    if not is_ours(checkpoint):
        return
    path = Path(checkpoint) / TRAINER_STATE
    unknown = sorted(read_json(path, TrainerFacts).keys() - {field.name for field in fields(TrainerState)})
    if unknown:
        raise CheckpointError(
            f"{path} has {', '.join(map(repr, unknown[:3]))}, which transformers {transformers.__version__} does not "
            "know: another version wrote the checkpoint. Resume with that version, or with a newer one."
        )


@dataclass(frozen=True)
class Restoration:
    """The state that goes into an engine once the Trainer has made it.

    `stock` is the checkpoint that the stock Trainer reads by itself. Of the other two at most one is given.
    """

    stock: Any = None
    checkpoint: Checkpoint | None = None
    unrounded: dict[str, Tensor] | None = None
    """Weights that DeepSpeed's masters start from."""

    @classmethod
    def planned(cls, trainer: Trainer, checkpoint: Any) -> "Restoration":
        """Return the restoration from `checkpoint`, or that of a fresh start where it is None."""
        if is_ours(checkpoint):
            return cls(checkpoint=Checkpoint.open(Path(checkpoint)))
        return cls(stock=checkpoint, unrounded=_unrounded_weights(trainer) if checkpoint is None else None)

    def apply(self, trainer: Trainer) -> None:
        """Put the state into the engine, optimizer, scheduler and scaler. Collective."""
        if self.checkpoint is not None:
            _restore(trainer, self.checkpoint)
        elif self.unrounded is not None:
            import_state(trainer.model_wrapped, trainer.optimizer, FullState(weights=self.unrounded))


def _unrounded_weights(trainer: Trainer) -> dict[str, Tensor] | None:
    """Copy the float32 weights before DeepSpeed takes the model; None where nothing must be restored.

    Low-precision engines round the weights before they copy them as masters, and at ZeRO 0 with bf16 the optimizer
    takes a step with zero gradients when it is made (DeepSpeed 0.19.8), which shifts Adam's bias correction. Importing
    the weights without any moments undoes both. A model made under DeepSpeed's own zero.Init is left alone: each rank
    holds a part of each weight, which is rounded already.
    """
    parameters = dict(trainer.model.named_parameters())
    if not trainer.is_deepspeed_enabled or any(hasattr(parameter, "ds_id") for parameter in parameters.values()):
        return None
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


class _Extra(TypedDict):
    """The values that every checkpointer saves beside model and optimizer."""

    scheduler: dict[str, Any]
    scaler: NotRequired[dict[str, Any] | None]
    evaluation_owed: bool


def _restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    extra = checkpoint.extra
    try:
        typed(_Extra, extra)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path / STATE} cannot be resumed: {error}; take another one") from error
    import_whole(trainer, checkpoint)
    trainer.lr_scheduler.load_state_dict(extra["scheduler"])
    if extra["evaluation_owed"]:
        trainer.parts.evaluator.owe(trainer.args, str(checkpoint.path))
    if trainer.accelerator.scaler is not None and extra.get("scaler") is not None:
        trainer.accelerator.scaler.load_state_dict(extra["scaler"])


def import_whole(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Put the weights and moments of a checkpoint into the engine and optimizer. Collective.

    An adapter's checkpoint leaves its base model out, whose frozen weights stay as they are. Raises CheckpointError on
    all ranks for a state that does not fit.
    """
    state = checkpoint.load_state()
    state.weights = frozen_weights(trainer.model) | state.weights
    try:
        import_state(trainer.model_wrapped, trainer.optimizer, state)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path} cannot be loaded: {error}") from error


def weights_come_later(model: nn.Module, checkpoint: str) -> bool:
    """Return True where `Restoration.apply` loads the weights, together with the optimizer.

    A model with a `load_state_dict` of its own, which may allocate buffers for what it loads, is loaded by the stock
    Trainer first.
    """
    own_loading = type(model).load_state_dict is not nn.Module.load_state_dict
    return is_ours(checkpoint) and not (own_loading and (Path(checkpoint) / MODEL).exists())


def restore_rng_state(checkpoint: str | None, rank: int, ranks: int) -> bool:
    """Set this rank's random generators from `checkpoint`. Returns False where the stock Trainer must do it.

    A run folder's checkpoint holds no generator: dropout is seeded by the step.
    """
    if checkpoint is None:
        return False
    path = Path(checkpoint) / RNG_STATES
    if not path.exists():
        return is_ours(checkpoint)
    saved = read_json(path, list[RngState])
    if len(saved) == ranks:
        write_rng_state(saved[rank])
    else:
        _LOG.warning("the random generators of %d ranks are not those of %d", len(saved), ranks)
    return True


def note_callback_states(trainer: Trainer) -> None:
    """Write the states of callbacks into `trainer.state`, as the stock does: a list for several of one class."""
    present = [*trainer.callback_handler.callbacks, trainer.control]
    stateful = [callback for callback in present if isinstance(callback, ExportableState)]
    trainer.state.stateful_callbacks |= TrainerState(stateful_callbacks=stateful).stateful_callbacks


def scaler_state(trainer: Trainer) -> dict[str, Any] | None:
    """Return the state of accelerate's fp16 GradScaler, or None without one."""
    scaler = trainer.accelerator.scaler
    return None if scaler is None else scaler.state_dict()
