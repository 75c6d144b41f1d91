"""Chooses the checkpoint that an attempt resumes; refuses one of other data, and one that --overwrite would remove."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ftsys.config import RunConfig, run_identity
from ftsys.data.store.reader import Store
from ftsys.errors import CheckpointError, ConfigError, RunFolderError
from ftsys.files.integrity import damage_of
from ftsys.ranks import is_main_rank
from ftsys.run_folder.layout import CHECKPOINTS, TRAINER_STATE
from ftsys.run_folder.report_facts import read_data_facts
from ftsys.train.checkpoint.catalog import (
    Checkpoint,
    clean_leftovers,
    complete_checkpoints,
    named_checkpoint,
    newest_checkpoint,
)
from ftsys.train.checkpoint.manifest import STATE
from ftsys.train.trainer.checkpointers.best import refuse_without_best

if TYPE_CHECKING:
    from ftsys.train.trainer.checkpointers.run_folder import Attempt


def check_resume(run: RunConfig, store: Store, overwrite: bool) -> None:
    """Look at the checkpoint that train.resume asks for before the folder is claimed and anything is removed.

    Raises CheckpointError for a named one that cannot be resumed to the end, ConfigError where --overwrite would
    remove it, and RunFolderError where it was trained on other rows: a file with the same name may have changed, which
    a run's identity does not show. Rank 0 alone reads every byte of a named one.
    """
    asked, root = run.train.resume, Path(run.output_dir) / CHECKPOINTS
    if asked == "never" or (asked == "auto" and overwrite):
        return
    if asked == "auto":
        found = _newest_readable(root)
    else:
        if overwrite:
            _refuse_removed(Path(asked), root)
        found = named_checkpoint(Path(asked), run_identity(run), contents=is_main_rank())
        refuse_without_best(run, found)
        _refuse_other_transformers(found)
    if found is not None:
        _refuse_other_data(run, found, store.fingerprint)


def checkpoint_to_resume(run: RunConfig, attempt: Attempt, say: Callable[[str], object]) -> str | None:
    """Return the folder of the checkpoint that train.resume asks for, verified; None for a start from step 0.

    For rank 0. `say` is called as `newest_checkpoint` does. Raises what `check_resume` raises.
    """
    clean_leftovers(attempt.checkpoints, attempt.number)
    if run.train.resume == "never":
        return None
    if run.train.resume == "auto":
        found = newest_checkpoint(attempt.checkpoints, attempt.identity, attempt.number, say)
    else:
        found = named_checkpoint(Path(run.train.resume), attempt.identity)
    if found is None:
        return None
    _refuse_other_data(run, found, attempt.store)
    return str(found.path)


def _newest_readable(root: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint with an intact state; its other files are verified when it is resumed."""
    return next((found for found in reversed(complete_checkpoints(root)) if _has_state(found)), None)


def _has_state(found: Checkpoint) -> bool:
    try:
        return not damage_of(found.path, {STATE: found.files[STATE]}) and isinstance(found.extra, dict)
    except CheckpointError:
        return False


def _refuse_removed(named: Path, root: Path) -> None:
    """Raise ConfigError for a checkpoint in `root`, also for a link there and for a link into it."""
    ways = (named.parent.resolve() / named.name, named.resolve())
    if any(way.is_relative_to(root.resolve()) for way in ways):
        raise ConfigError(
            f"train.resume={str(named)!r} is one of the checkpoints in {str(root)!r}, which --overwrite removes. Start "
            "without --overwrite, name another output_dir, or move the checkpoint to another folder first."
        )


def _refuse_other_data(run: RunConfig, found: Checkpoint, store: str | None) -> None:
    then = found.extra.get("store") or _store_of_run(found)
    if then is None or store is None or then == store:
        return
    if run.train.resume == "auto":
        told, remedy = f"the checkpoints in {run.output_dir!r} are", "with --overwrite, or name another output_dir."
    else:
        told, remedy = f"train.resume={run.train.resume!r} is", 'with train.resume = "never", or name another one.'
    raise RunFolderError(
        f"{told} of a run on other data: the source or the tokenizer has changed "
        f"(store {str(then)[:16]} then, {store[:16]} now). Start from the beginning {remedy}"
    )


def _refuse_other_transformers(found: Checkpoint) -> None:
    from ftsys.train.trainer.checkpointers.restore import refuse_unknown_keys  # imports torch

    if TRAINER_STATE in found.files:
        refuse_unknown_keys(found.path)


def _store_of_run(found: Checkpoint) -> str | None:
    """Return the store of the run folder that holds a checkpoint: one of an older version does not name its own."""
    if found.path.parent.name != CHECKPOINTS:
        return None
    facts = read_data_facts(found.path.parent.parent)
    return None if facts is None else facts.fingerprint
