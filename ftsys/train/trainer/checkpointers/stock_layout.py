"""Saves checkpoints where the stock Trainer does, as `output_dir/checkpoint-N`: whole or not there.

    checkpoint-345/config.json model.safetensors tokenizer files     the stock files, for plain `from_pretrained`
                   trainer_state.json                                the stock file
                   training_args.json                                the content of the stock training_args.bin
                   optimizer.safetensors state.json rng.json         ours: any world size and ZeRO stage reads them
                   weights.safetensors                               ours, where model.safetensors holds other weights
                   manifest.json                                     sizes and sha256 of all; written last
                   optimizer.pt scheduler.pt scaler.pt               torch's pickles, with save_stock_state=True alone;
                                                                     only the stock Trainer reads them

A state that this format cannot hold (FSDP, an optimizer with a state of its own kind) is saved by the stock Trainer,
and the reason is logged once.
"""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints, sort_checkpoints

from ftsys.distributed import decided_by_rank_0
from ftsys.errors import CheckpointError
from ftsys.files.folders import remove_tree, sync_folder
from ftsys.files.integrity import damage_of, written_file
from ftsys.files.storage_errors import storage_errors
from ftsys.run_folder.layout import TRAINER_STATE
from ftsys.train.checkpoint.catalog import OLD, Checkpoint, put_back
from ftsys.train.checkpoint.files import index_of, write_json
from ftsys.train.checkpoint.manifest import MODEL, STATE, WEIGHTS, write_manifest
from ftsys.train.checkpoint.optimizer_layout import frozen_weights
from ftsys.train.checkpoint.rng_state import gather_rng_states
from ftsys.train.checkpoint.state_dict import export_state
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.writer import Entries, put_in_place, write_facts, write_tensors
from ftsys.train.optimizer.master_adamw import masters_of
from ftsys.train.trainer.arguments import setting
from ftsys.train.trainer.checkpointers.restore import (
    RNG_STATES,
    import_whole,
    is_ours,
    note_callback_states,
    scaler_state,
)
from ftsys.train.trainer.checkpointers.stock_format import same_tensors, why_stock_format

_LOG = logging.getLogger("ftsys")
PICKLED_ARGUMENTS, ARGUMENTS = "training_args.bin", "training_args.json"
ADAPTER = "adapter_config.json"
UNFINISHED = "_unfinished-"
"""Prefix of a folder's name while it is written, so that no reader takes it for a checkpoint.

The leading underscore also keeps it from the Hub, to which `push_to_hub` uploads the output folder meanwhile.
"""


class StockLayoutCheckpointer:
    """Writes checkpoints with the stock names and places. A `Checkpointer`."""

    def __init__(self) -> None:
        self._reason_logged = False

    def checkpoint_to_resume(self, trainer: Trainer, asked: Any) -> Any:
        """Return the verified checkpoint: the one that is named, or with True the newest sound one. Collective."""
        if not asked:
            return asked
        root = Path(trainer.args.output_dir)
        return decided_by_rank_0(lambda: _newest(root) if asked is True else _named(asked))

    def begin_training(self, trainer: Trainer) -> None:
        """Do nothing: the checkpoint that is resumed names the best one so far."""

    def save(self, trainer: Trainer, trial: Any) -> bool:
        """Write the checkpoint, push it where that is asked for, and remove old ones. Collective."""
        reason = why_stock_format(trainer)
        if reason is not None:
            self._log_reason(trainer, reason)
            return False
        if trainer.hp_search_backend is None and trial is None:
            trainer.store_flos()
        run_folder = Path(trainer._get_output_dir(trial=trial))
        folder = run_folder / f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}"
        _write_folder(trainer, folder)
        if trainer.args.push_to_hub:
            trainer._push_from_checkpoint(str(folder))
        if trainer.args.should_save:
            best = trainer.state.best_model_checkpoint
            rotate_checkpoints(str(run_folder), trainer.args.save_total_limit, best, use_mtime=True)
        return True

    def _log_reason(self, trainer: Trainer, reason: str) -> None:
        if not self._reason_logged and trainer.args.process_index == 0:
            _LOG.warning("checkpoints in the stock format, because %s", reason)
            self._reason_logged = True

    def before_update(self) -> None:
        """Do nothing: a save has made its copies when it returns."""

    def load_best(self, trainer: Trainer) -> bool:
        """Load the best checkpoint where the weights that train are masters: the stock Trainer would round them."""
        best = trainer.state.best_model_checkpoint
        if not is_ours(best) or not _has_masters(trainer):
            return False
        import_whole(trainer, Checkpoint.open(Path(str(best))))
        return True

    def finish(self) -> None:
        """Do nothing: a save returns once it is on the disk."""


def _has_masters(trainer: Trainer) -> bool:
    return trainer.is_deepspeed_enabled or masters_of(trainer.optimizer) is not None


def _write_folder(trainer: Trainer, folder: Path) -> None:
    """Write the checkpoint of the present step. Collective."""
    unfinished = folder.with_name(UNFINISHED + folder.name)
    decided_by_rank_0(lambda: _begin(unfinished))
    state = export_state(trainer.model_wrapped, trainer.optimizer)
    if not _has_masters(trainer):
        trainer.save_model(str(unfinished), _internal_call=True)
    elif trainer.args.should_save:  # the unrounded weights, which rank 0 has by now
        trainer._save(str(unfinished), state_dict=state.weights | state.buffers)
    rng_states = gather_rng_states()
    best = folder.with_name(f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.best_global_step}")
    if decided_by_rank_0(lambda: best == folder or best.exists()):
        trainer.state.best_model_checkpoint = str(best)
    decided_by_rank_0(partial(_complete, trainer, unfinished, folder, state, rng_states))


def _complete(trainer: Trainer, unfinished: Path, folder: Path, state: FullState, rng_states: list[Any]) -> None:
    """Write on rank 0 all that is not the model, then the manifest; give the folder its name last."""
    with storage_errors(folder):
        (unfinished / PICKLED_ARGUMENTS).unlink(missing_ok=True)
        note_callback_states(trainer)
        trainer.state.save_to_json(str(unfinished / TRAINER_STATE))
        if setting(trainer.args, "save_stock_state") and not trainer.args.save_only_model:
            _write_stock_state(trainer, unfinished)
        there = (path for path in sorted(unfinished.rglob("*")) if path.is_file())  # adapters have folders of their own
        files = {path.relative_to(unfinished).as_posix(): written_file(path) for path in there}
        files[ARGUMENTS] = write_json(unfinished / ARGUMENTS, json.loads(trainer.args.to_json_string()))
        if not trainer.args.save_only_model:
            files |= _write_state(trainer, unfinished, state, rng_states)
            facts = {"step": trainer.state.global_step, "attempt": 0, "identity": "", "files": files}
            write_manifest(unfinished, facts)
        sync_folder(unfinished)
        put_in_place(unfinished, folder)


def _write_stock_state(trainer: Trainer, folder: Path) -> None:
    """Write the states that the stock Trainer resumes from, under its names. The weights are in the stock file already.

    Raises OSError.
    """
    scaler = trainer.accelerator.scaler
    stateful = {OPTIMIZER_NAME: trainer.optimizer, SCHEDULER_NAME: trainer.lr_scheduler}
    for name, part in (stateful | ({} if scaler is None else {SCALER_NAME: scaler})).items():
        torch.save(part.state_dict(), folder / name)


def _write_state(trainer: Trainer, folder: Path, state: FullState, rng_states: list[Any]) -> Entries:
    """Write the files that only a resumed training reads; returns their entries. Raises OSError."""
    extra = {"scheduler": trainer.lr_scheduler.state_dict(), "scaler": scaler_state(trainer), "evaluation_owed": False}
    same = same_tensors(folder / MODEL, state.weights | state.buffers)
    if any(folder.rglob(ADAPTER)) and not trainer.is_deepspeed_enabled:
        frozen = frozen_weights(trainer.model)  # the base model's, which the stock files leave out as well
        state.weights = {name: tensor for name, tensor in state.weights.items() if name not in frozen}
    files = write_tensors(folder, state, weights=not same)
    return files | write_facts(folder, state, extra, {RNG_STATES: rng_states}, MODEL if same else WEIGHTS)


def _begin(unfinished: Path) -> None:
    """Make an empty folder on rank 0, and clean up what an interrupted save left."""
    with storage_errors(unfinished):
        for left in unfinished.parent.glob(f"{UNFINISHED}{PREFIX_CHECKPOINT_DIR}-*"):
            remove_tree(left)
        for aside in unfinished.parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*{OLD}"):
            put_back(aside)
        unfinished.mkdir(parents=True)


def _newest(root: Path) -> Any:
    """Return the newest sound checkpoint as a path, or True where there is none: transformers then raises its error."""
    folders = sort_checkpoints(str(root)) if root.is_dir() else []
    for folder in (folder for folder in reversed(folders) if not folder.endswith(OLD)):
        damage = _damage(Path(folder))
        if not damage:
            return folder
        _LOG.warning("skipped %s: %s", folder, "; ".join(damage))
    return True


def _named(chosen: Any) -> str:
    damage = _damage(Path(chosen))
    if damage:
        raise CheckpointError(f"resume_from_checkpoint={str(chosen)!r} is damaged: {'; '.join(damage)}. Name another.")
    return str(chosen)


def _damage(folder: Path) -> list[str]:
    """Return a line for each damaged file of a checkpoint of ours; none for a stock one, which has no manifest.

    People edit the stock text files and split the model into several files, so those are not compared.
    """
    if not is_ours(folder):
        return []
    try:
        checkpoint = Checkpoint.open(folder)
        files = checkpoint.files
        cut = {MODEL} if index_of(folder / MODEL).exists() and not (folder / MODEL).exists() else set()
        held = {name for name in files if name.endswith(".safetensors") or name in (STATE, RNG_STATES)}
        damage = damage_of(folder, {name: files[name] for name in held - cut})
        if not damage:
            checkpoint.check_content()
        return damage
    except CheckpointError as error:
        return [str(error)]
