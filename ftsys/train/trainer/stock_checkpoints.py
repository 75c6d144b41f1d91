"""Checkpoints where the stock Trainer keeps them: `output_dir/checkpoint-N`, complete or not there, without a pickle.

    checkpoint-345/config.json model.safetensors tokenizer files     the stock files, for plain `from_pretrained`
                   trainer_state.json                                the stock file
                   training_args.json                                what the stock training_args.bin holds
                   optimizer.safetensors state.json rng.json         ours: any world size and ZeRO stage reads them
                   weights.safetensors                               ours, where model.safetensors holds other weights
                   manifest.json                                     sizes and sha256 of all; written last

What this format cannot hold (FSDP, an optimizer with a state of its own kind) goes the stock way, with the reason said.
"""

import json
import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer_callback import ExportableState, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints, sort_checkpoints

from ftsys.distributed import decided_by_rank_0
from ftsys.errors import CheckpointError
from ftsys.files import storage_errors, sync_folder
from ftsys.integrity import damage_of, written_file
from ftsys.run_folder.layout import TRAINER_STATE
from ftsys.train.checkpoint.catalog import OLD, STATE, WEIGHTS, Checkpoint
from ftsys.train.checkpoint.files import index_of, read_json, write_json
from ftsys.train.checkpoint.manifest import write_manifest
from ftsys.train.checkpoint.optimizer_layout import frozen_weights
from ftsys.train.checkpoint.rng_state import read_generators, write_generators
from ftsys.train.checkpoint.state_dict import export_state, import_state
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.writer import put_in_place, write_facts, write_tensors
from ftsys.train.trainer.checkpointing import CheckpointTrainer, is_ours
from ftsys.train.trainer.stock_format import same_tensors, why_stock_format

_LOG = logging.getLogger("ftsys")
PICKLED_ARGUMENTS, ARGUMENTS = "training_args.bin", "training_args.json"
GENERATORS = "rng.json"
MODEL, ADAPTER = "model.safetensors", "adapter_config.json"
UNFINISHED = "_unfinished-"
"""Stands before a folder's name while it is written: no reader of checkpoints takes it for one.

The first character keeps it from the Hub, to which `push_to_hub` sends the output folder meanwhile.
"""


class StockFilesTrainer(CheckpointTrainer):
    """transformers' Trainer, whose checkpoints keep their places and names where no `life` is given."""

    _said_about_checkpoints = False

    def train(
        self, resume_from_checkpoint: Any = None, trial: Any = None, ignore_keys_for_eval: list[str] | None = None
    ) -> Any:
        """As transformers'. A checkpoint of ours is read whole and held against its manifest first.

        Raises CheckpointError for one that is damaged and was named; with True the newest sound one is taken.
        """
        if resume_from_checkpoint and self.life is None:
            chosen, root = resume_from_checkpoint, Path(self.args.output_dir)
            resume_from_checkpoint = decided_by_rank_0(lambda: _newest(root) if chosen is True else _named(chosen))
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        reason = why_stock_format(self) if self.life is None else None
        if self.life is not None or reason is not None:
            self._say_stock_format(reason)
            super()._save_checkpoint(model, trial)
            return
        if self.hp_search_backend is None and trial is None:
            self.store_flos()
        run_folder = Path(self._get_output_dir(trial=trial))
        folder = run_folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._write_folder(folder)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            rotate_checkpoints(str(run_folder), self.args.save_total_limit, best, use_mtime=True)

    def _say_stock_format(self, reason: str | None) -> None:
        if reason is not None and not self._said_about_checkpoints and self.args.process_index == 0:
            _LOG.warning("checkpoints in the stock format, because %s", reason)
            self._said_about_checkpoints = True

    def _write_folder(self, folder: Path) -> None:
        """Every rank: the checkpoint of the present step, at once."""
        unfinished = folder.with_name(UNFINISHED + folder.name)
        decided_by_rank_0(lambda: _begin(unfinished))
        state = export_state(self.model_wrapped, self.optimizer)
        if self.is_deepspeed_enabled or self.masters is not None:
            if self.args.should_save:  # the unrounded weights, which rank 0 has by now
                self._save(str(unfinished), state_dict=state.weights | state.buffers)
        else:
            self.save_model(str(unfinished), _internal_call=True)
        generators = read_generators()
        best = folder.with_name(f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}")
        if decided_by_rank_0(lambda: best == folder or best.exists()):
            self.state.best_model_checkpoint = str(best)
        decided_by_rank_0(partial(self._complete, unfinished, folder, state, generators))

    def _complete(self, unfinished: Path, folder: Path, state: FullState, generators: list[Any]) -> None:
        """Rank 0: what is not the model's, then the manifest, then the name."""
        with storage_errors(folder):
            (unfinished / PICKLED_ARGUMENTS).unlink(missing_ok=True)
            self._note_callback_states()
            self.state.save_to_json(str(unfinished / TRAINER_STATE))
            files = {path.name: written_file(path) for path in sorted(unfinished.iterdir()) if path.is_file()}
            files[ARGUMENTS] = write_json(unfinished / ARGUMENTS, json.loads(self.args.to_json_string()))
            if not self.args.save_only_model:
                extra = {"scheduler": self.lr_scheduler.state_dict(), "scaler": self._scaler_state()}
                same = same_tensors(unfinished / MODEL, state.weights | state.buffers)
                if any(unfinished.rglob(ADAPTER)) and not self.is_deepspeed_enabled:
                    frozen = frozen_weights(self.model)  # the base model's, which the stock files leave out as well
                    state.weights = {name: tensor for name, tensor in state.weights.items() if name not in frozen}
                files |= write_tensors(unfinished, state, weights=not same)
                extra |= {"evaluation_owed": False}
                files |= write_facts(unfinished, state, extra, {GENERATORS: generators}, MODEL if same else WEIGHTS)
                facts = {"step": self.state.global_step, "attempt": 0, "identity": "", "files": files}
                write_manifest(unfinished, facts)
            sync_folder(unfinished)
            put_in_place(unfinished, folder)

    def _note_callback_states(self) -> None:
        """As the stock Trainer: several callbacks of one class have a list."""
        present = [*self.callback_handler.callbacks, self.control]
        stateful = [callback for callback in present if isinstance(callback, ExportableState)]
        self.state.stateful_callbacks |= TrainerState(stateful_callbacks=stateful).stateful_callbacks

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As transformers' where the model has a `load_state_dict` of its own, which may make room for what comes."""
        own_loading = type(self.model).load_state_dict is not nn.Module.load_state_dict
        if own_loading and (Path(resume_from_checkpoint) / MODEL).exists():
            Trainer._load_from_checkpoint(self, resume_from_checkpoint, model)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The generators of this rank, from our file or the stock one."""
        if checkpoint is None or not (Path(checkpoint) / GENERATORS).exists():
            super()._load_rng_state(checkpoint)
            return
        saved = read_json(Path(checkpoint) / GENERATORS)
        if len(saved) == self.args.world_size:
            write_generators(saved[self.args.process_index])
        else:
            _LOG.warning("the random generators of %d ranks are not those of %d", len(saved), self.args.world_size)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if self.life is None and is_ours(best) and (self.is_deepspeed_enabled or self.masters is not None):
            import_state(self.model_wrapped, self.optimizer, Checkpoint.open(Path(str(best))).load_state())
            self.weights_version += 1
        else:
            super()._load_best_model()


def _begin(unfinished: Path) -> None:
    """Rank 0: an empty folder, and none that a run left when it died."""
    with storage_errors(unfinished):
        for left in unfinished.parent.glob(f"{UNFINISHED}{PREFIX_CHECKPOINT_DIR}-*"):
            shutil.rmtree(left)
        for aside in unfinished.parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*{OLD}"):
            if aside.with_suffix("").exists():
                shutil.rmtree(aside)
            else:
                aside.rename(aside.with_suffix(""))
        unfinished.mkdir(parents=True)


def _newest(root: Path) -> Any:
    """The newest checkpoint that is sound, as a path; True where there is none, for transformers to say so."""
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
    """What is wrong with a checkpoint of ours; nothing is known of a stock one.

    People edit the stock text files and cut the model into shards: those need not be what was written.
    """
    if not is_ours(folder):
        return []
    try:
        files = Checkpoint.open(folder).files
        read_json(folder / TRAINER_STATE)
    except CheckpointError as error:
        return [str(error)]
    cut = {MODEL} if index_of(folder / MODEL).exists() and not (folder / MODEL).exists() else set()
    held = {name for name in files if name.endswith(".safetensors") or name in (STATE, GENERATORS)}
    return damage_of(folder, {name: files[name] for name in held - cut})
