"""Saves checkpoints into a run folder: every rank writes its shard in the background while training goes on."""

import dataclasses
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer_utils import SaveStrategy

from ftsys.distributed import decided_by_rank_0, rank, world_size
from ftsys.errors import CheckpointError
from ftsys.files.json_safe import json_safe
from ftsys.files.untrusted import FileEntries, typed
from ftsys.run_folder.attempts import errors_after_takeover, refuse_after_takeover
from ftsys.run_folder.layout import TRAINER_STATE
from ftsys.train.checkpoint.background import BackgroundSaver, bytes_of, fits_in_memory
from ftsys.train.checkpoint.catalog import Checkpoint, prune_checkpoints, step_folder
from ftsys.train.checkpoint.shard import export_shard
from ftsys.train.checkpoint.store_barrier import StoreBarrier
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.writer import Draft, Entries, abandon, begin, complete, write_shard
from ftsys.train.perf.staging import StagingBuffers
from ftsys.train.trainer.checkpointers.best import best_checkpoint
from ftsys.train.trainer.checkpointers.restore import import_whole, note_callback_states, scaler_state
from ftsys.train.trainer.hooks import RunHooks


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run, as its checkpoints name it."""

    checkpoints: Path
    """The folder that holds them."""
    identity: str
    """Identity of the run, from `ftsys.config.run_identity`."""
    number: int
    keep: int
    """The newest checkpoints that are kept, besides the best one."""
    documents: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that each checkpoint holds besides, by file name."""
    store: str | None = None
    """Fingerprint of the store that the run trains on."""


class RunFolderCheckpointer:
    """Writes `checkpoints/step-N` folders, which any world size and ZeRO stage reads. A `Checkpointer`."""

    def __init__(self, attempt: Attempt, hooks: RunHooks | None = None) -> None:
        """Use `hooks` to ask whether an evaluation is owed, and to report a save that failed."""
        self.attempt, self._hooks = attempt, hooks or RunHooks()
        self._saver = BackgroundSaver(self._hooks.on_saving_error)
        self._buffers = StagingBuffers()
        self._resumed: Path | None = None

    @cached_property
    def _barrier(self) -> StoreBarrier:
        """Made when the training begins: the process group may not exist before the Trainer's arguments do."""
        return StoreBarrier()

    def checkpoint_to_resume(self, trainer: Trainer, asked: Any) -> Any:
        """Return `asked`: whoever starts the run has chosen and verified it. Collective.

        Connects to the other ranks' store: later it may be gone with the launcher, and connecting would wait for it.
        """
        _ = self._barrier
        self._resumed = None if asked is None else Path(asked)
        return asked

    def begin_training(self, trainer: Trainer) -> None:
        """Look for the best checkpoint so far, which may lie in the folder of another run. Collective."""
        state, resumed = trainer.state, self._resumed
        step, recorded = state.best_global_step, state.best_model_checkpoint
        if resumed is not None and step is not None:
            state.best_model_checkpoint = decided_by_rank_0(lambda: str(best_checkpoint(resumed, step, recorded)))

    def save(self, trainer: Trainer, trial: Any = None) -> bool:
        """Copy this rank's shard and start to write it; waits for the checkpoint before. Collective.

        Raises on every rank the error of the save before.
        """
        self.wait()
        state = trainer.state
        shard = export_shard(trainer.model_wrapped, trainer.optimizer, self._buffers)
        if trainer.is_deepspeed_enabled:  # its update is a part of the last backward pass
            self.before_update()
        if state.best_global_step == state.global_step and trainer.args.save_strategy != SaveStrategy.NO:
            state.best_model_checkpoint = str(self._folder(state.global_step))
        draft = self._draft(trainer)
        name, number = decided_by_rank_0(lambda: _begun(draft))
        draft = dataclasses.replace(draft, attempt=number)
        keep, best = self.attempt.keep, state.best_global_step
        write = partial(_write_checkpoint, self._barrier, name, draft, shard, self._buffers.wait, keep, best)
        self._saver.start(write, in_background=fits_in_memory(bytes_of(shard)))
        return True

    def before_update(self) -> None:
        """Keep the update of the weights behind the copies of the last save, which a GPU may still be making."""
        self._buffers.before_update()

    def _draft(self, trainer: Trainer) -> Draft:
        note_callback_states(trainer)
        extra = {
            "scheduler": json_safe(trainer.lr_scheduler.state_dict(), finite=False),
            "scaler": scaler_state(trainer),
            "evaluation_owed": self._hooks.evaluation_owed(),
            "store": self.attempt.store,
        }
        attempt, step = self.attempt, trainer.state.global_step
        documents = {TRAINER_STATE: json_safe(dataclasses.asdict(trainer.state)), **attempt.documents}
        return Draft(attempt.checkpoints, step, attempt.identity, attempt.number, extra, documents)

    def save_before_leaving(self, trainer: Trainer) -> None:
        """Save the present step unless a checkpoint says the same; returns once it is on the disk. Collective."""
        self.wait()
        if decided_by_rank_0(lambda: not self._is_saved(trainer.state.global_step)):
            self.save(trainer)
        self.wait()

    def _is_saved(self, step: int) -> bool:
        """Return True where this attempt has saved a step, and as owing the evaluation that it owes now."""
        try:
            saved = Checkpoint.open(self._folder(step))
            owed = bool(saved.extra.get("evaluation_owed"))
        except CheckpointError:
            return False
        return (saved.attempt, owed) == (self.attempt.number, self._hooks.evaluation_owed())

    def load_best(self, trainer: Trainer) -> bool:
        """Load the checkpoint of the best step. Returns False where no step was the best. Collective."""
        best = trainer.state.best_model_checkpoint
        if best is None:
            return False
        self.wait()
        import_whole(trainer, Checkpoint.open(Path(best)))
        return True

    def wait(self) -> None:
        """Wait for a checkpoint that is being written. Raises on every rank the error that stopped it."""
        self._saver.wait()

    def finish(self) -> None:
        """Wait as `wait` does, then free the memory of the copies."""
        self.wait()
        self._buffers.clear()

    def _folder(self, step: int) -> Path:
        return step_folder(self.attempt.checkpoints, step)


def _begun(draft: Draft) -> list[Any]:
    """Begin the checkpoint on rank 0; returns a new name for the ranks' barrier, and the number of this attempt.

    The other ranks need both: only rank 0 knows the number for sure. Raises StorageError, and RunFolderError once a
    newer attempt has claimed the run folder.
    """
    refuse_after_takeover(draft.root.parent, draft.attempt)
    with errors_after_takeover(draft.root.parent, draft.attempt):
        begin(draft)
    return [f"ftsys/checkpoint/{secrets.token_hex(8)}", draft.attempt]


def _write_checkpoint(
    barrier: StoreBarrier,
    name: str,
    draft: Draft,
    shard: FullState,
    copied: Callable[[], None],
    keep: int,
    best: int | None,
) -> None:
    """Write this rank's shard after `copied`, which waits for its copies.

    On rank 0 also complete the checkpoint once all ranks have written. An attempt that is not the newest any more
    completes nothing and removes nothing: the newer one may be reading it.
    """
    folder = draft.root.parent

    def write() -> Entries:
        copied()
        return write_shard(draft.partial, shard, rank(), world_size())

    def conclude(written: list[Entries]) -> None:
        named = typed(list[FileEntries], written)  # they come through a store without authentication
        refuse_after_takeover(folder, draft.attempt)
        complete(draft, shard, {file: entry for entries in named for file, entry in entries.items()})
        refuse_after_takeover(folder, draft.attempt)
        prune_checkpoints(draft.root, keep, best)

    try:
        with errors_after_takeover(folder, draft.attempt):
            barrier.run(name, write, conclude)
    except BaseException:
        if rank() == 0:
            abandon(draft)
        raise
