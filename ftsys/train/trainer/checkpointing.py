"""The Trainer's checkpoints in this project's format, and the trained model as plain Hugging Face files."""

import copy
import dataclasses
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from ftsys.distributed import decided_by_rank_0, rank, world_size
from ftsys.errors import FtsysError
from ftsys.files import json_safe, storage_errors
from ftsys.run_folder.layout import TRAINER_STATE
from ftsys.train.checkpoint.background import Beside, bytes_of, fits_beside
from ftsys.train.checkpoint.catalog import Checkpoint, prune_checkpoints
from ftsys.train.checkpoint.optimizer_layout import frozen_weights
from ftsys.train.checkpoint.shard import export_share
from ftsys.train.checkpoint.state_dict import export_state, import_state
from ftsys.train.checkpoint.store_barrier import Board
from ftsys.train.checkpoint.training_state import FullState, Room
from ftsys.train.checkpoint.writer import Draft, Entries, abandon, begin, complete, write_share
from ftsys.train.trainer.nonfinite_steps import FiniteStepsTrainer


@dataclass(frozen=True)
class Life:
    """One life of a run: where its checkpoints lie, which run it is, and which start of it."""

    checkpoints: Path
    identity: str
    attempt: int
    keep: int
    documents: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that each checkpoint holds besides, by file name."""


class CheckpointTrainer(FiniteStepsTrainer):
    """transformers' Trainer with checkpoints that any world size and ZeRO stage reads, once `life` is given."""

    life: Life | None = None
    owes_evaluation: Callable[[], bool] = staticmethod(lambda: False)
    """Whether the step that is saved is due an evaluation that this life will not make."""
    on_saving_error: Callable[[FtsysError], None] = staticmethod(lambda error: None)
    """Told on every rank, in another thread, of a checkpoint that could not be written; `finish_saving` raises it."""
    weights_version = 0
    """Raised where weights change without a step: predictions made before then are not of them."""

    def __init__(self, *stock: Any, **named: Any) -> None:
        """As transformers'."""
        super().__init__(*stock, **named)
        self._saver = Beside(lambda error: self.on_saving_error(error))
        self._room = Room()

    @cached_property
    def _board(self) -> Board:
        return Board()  # of a process group that a Trainer's arguments may make as late as now

    def train(self, *args: Any, **named: Any) -> Any:
        """As transformers', and returns once the last checkpoint is on the disk."""
        output = super().train(*args, **named)
        self.finish_saving()
        self._room.clear()
        return output

    def finish_saving(self) -> None:
        """Wait for a checkpoint that is being written. Every rank calls it; raises on every rank what hindered it."""
        self._saver.wait()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.life is None:
            super()._save_checkpoint(model, trial)
            return
        self.finish_saving()
        share = export_share(self.model_wrapped, self.optimizer, self._room)
        if self.state.best_global_step and self.args.save_strategy != SaveStrategy.NO:
            self.state.best_model_checkpoint = str(self._step_folder(self.state.best_global_step))
        draft = self._draft(self.life)
        name, folder = decided_by_rank_0(lambda: _begun(draft))
        best = self.state.best_global_step
        write = partial(_write_checkpoint, self._board, name, folder, draft, share, self.life.keep, best)
        self._saver.start(write, beside=fits_beside(bytes_of(share)))

    def _draft(self, life: Life) -> Draft:
        self._note_callback_states()
        extra = {
            "scheduler": json_safe(self.lr_scheduler.state_dict()),
            "scaler": self._scaler_state(),
            "evaluation_owed": self.owes_evaluation(),
        }
        documents = {TRAINER_STATE: json_safe(dataclasses.asdict(self.state)), **life.documents}
        return Draft(life.checkpoints, self.state.global_step, life.identity, life.attempt, extra, documents)

    def save_before_leaving(self) -> None:
        """A checkpoint of the present step, unless there is one; returns once it is on the disk. Collective."""
        assert self.life is not None
        self.finish_saving()
        if decided_by_rank_0(lambda: not self._step_folder(self.state.global_step).exists()):
            self._save_checkpoint(self.model, None)
        self.finish_saving()

    def _step_folder(self, step: int) -> Path:
        assert self.life is not None
        return self.life.checkpoints / f"step-{step:06d}"

    def _note_callback_states(self) -> None:
        """What callbacks want to know after a resume, in the Trainer's own place for it."""
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()

    def _scaler_state(self) -> dict[str, Any] | None:
        scaler = self.accelerator.scaler
        return None if scaler is None else scaler.state_dict()

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        """As transformers', then the checkpoint's state into whatever engine it made."""
        if resume_from_checkpoint is None and self.is_deepspeed_enabled:
            return self._prepare_from_float32(max_steps, train_dataloader)
        if not is_ours(resume_from_checkpoint):
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        checkpoint = Checkpoint.open(Path(resume_from_checkpoint))
        state = checkpoint.load_state()
        state.weights = frozen_weights(self.model) | state.weights  # an adapter's checkpoint leaves its base model out
        import_state(self.model_wrapped, self.optimizer, state)
        self.lr_scheduler.load_state_dict(checkpoint.extra["scheduler"])
        self.args.eval_on_start = self.args.eval_on_start or checkpoint.extra["evaluation_owed"]
        if self.accelerator.scaler is not None and checkpoint.extra["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.extra["scaler"])
        return prepared

    def _run_epoch(self, *loop: Any, **named: Any) -> None:
        """As transformers', but no step after the last: it takes one when resumed at a `max_steps` within an epoch."""
        if self.state.global_step < self.state.max_steps:
            return super()._run_epoch(*loop, **named)
        self.control.should_training_stop = True
        return None

    def _prepare_from_float32(self, max_steps: int, train_dataloader: Any) -> Any:
        """Start DeepSpeed's masters from the unrounded weights, and its optimizer from no step at all.

        Low-precision engines round the weights before they copy them as masters, and at ZeRO 0 with bf16 the optimizer
        takes a step with zero gradients when it is made (DeepSpeed 0.19.8), which shifts Adam's bias correction.
        """
        if any(hasattr(parameter, "ds_id") for parameter in self.model.parameters()):
            # Made under DeepSpeed's own zero.Init: each rank holds a part of a weight already, as it was rounded.
            return super()._prepare_for_training(max_steps, train_dataloader, None)
        weights = {name: tensor.detach().clone() for name, tensor in self.model.named_parameters()}
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        import_state(self.model_wrapped, self.optimizer, FullState(weights=weights))
        return prepared

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing for our own checkpoints: their weights arrive with the optimizer, once the engine is there."""
        if not is_ours(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing for our own checkpoints: dropout is seeded by the step."""
        if not is_ours(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        if self.life is None or self.state.best_global_step is None:
            super()._load_best_model()
            return
        self.finish_saving()
        best = Checkpoint.open(self._step_folder(self.state.best_global_step))
        import_state(self.model_wrapped, self.optimizer, best.load_state())
        self.weights_version += 1

    def save_plain_model(self, folder: Path) -> None:
        """Write the float32 weights and the config for `from_pretrained`; every rank calls it, rank 0 writes.

        Raises StorageError when the disk refuses.
        """
        state = export_state(self.model_wrapped, self.masters)
        if self.args.process_index != 0:
            return
        config = copy.deepcopy(self.model.config)
        config.dtype = torch.float32  # the masters', whatever the engine computed in
        config.architectures = [type(self.model).__name__]
        with storage_errors(folder):
            config.save_pretrained(folder)
            tensors = {name: tensor.contiguous() for name, tensor in (state.weights | state.buffers).items()}
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _begun(draft: Draft) -> tuple[str, Path]:
    """Rank 0: begin it; a new name for what the ranks' threads say of it, and the folder that they write into.

    The others cannot tell by themselves: only rank 0 knows for sure which life of the run this is.
    """
    begin(draft)
    return f"ftsys/checkpoint/{secrets.token_hex(8)}", draft.partial


def _write_checkpoint(
    board: Board, name: str, folder: Path, draft: Draft, share: FullState, keep: int, best: int | None
) -> None:
    """This rank's share into the step's folder; on rank 0 the rest of it too, once all ranks have written theirs."""

    def conclude(written: list[Entries]) -> None:
        complete(draft, share, {file: entry for entries in written for file, entry in entries.items()})
        prune_checkpoints(draft.root, keep, best)

    try:
        board.done_by_all(name, lambda: write_share(folder, share, rank(), world_size()), conclude)
    except BaseException:
        if rank() == 0:
            abandon(draft)
        raise


def is_ours(checkpoint: Any) -> bool:
    """Whether this is a checkpoint folder of this project's format."""
    return isinstance(checkpoint, str | Path) and (Path(checkpoint) / "manifest.json").exists()
