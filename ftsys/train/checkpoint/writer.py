"""Writes a checkpoint: rank 0 begins a folder, all ranks write their shards at once, rank 0 completes and renames it.

The folder is `step-N.tmp-<attempt>` until it holds the manifest and everything has reached the disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftsys.files.folders import remove_tree, sync_folder
from ftsys.files.storage_errors import storage_errors
from ftsys.files.untrusted import FileEntry
from ftsys.train.checkpoint.catalog import OLD, clean_leftovers, complete_checkpoints, refuse_newer, step_folder
from ftsys.train.checkpoint.files import write_json, write_safetensors
from ftsys.train.checkpoint.manifest import OPTIMIZER, STATE, WEIGHTS, name_of_part, write_manifest
from ftsys.train.checkpoint.training_state import FullState

Entries = dict[str, FileEntry]
"""Lines of a manifest: size and sha256 by file name."""


@dataclass(frozen=True)
class Draft:
    """A checkpoint that is being written: its place, step, run and attempt."""

    root: Path
    step: int
    identity: str
    attempt: int
    extra: dict[str, Any]
    """JSON values that `Checkpoint.extra` returns."""
    documents: Mapping[str, Any] = field(default_factory=dict)
    """More JSON values by file name, each read by code of its own."""

    @property
    def final(self) -> Path:
        """The folder, once it is complete."""
        return step_folder(self.root, self.step)

    @property
    def partial(self) -> Path:
        """The folder while it is written."""
        return self.root / f"{self.final.name}.tmp-{self.attempt}"


def save_checkpoint(
    root: Path,
    step: int,
    state: FullState,
    extra: dict[str, Any],
    identity: str,
    attempt: int,
    documents: Mapping[str, Any] | None = None,
) -> Path:
    """Write a whole state as `root/step-<step>`, completely or not at all, in one process; returns its path.

    Raises StorageError when the disk is full or refuses, RunFolderError when a newer attempt has written a checkpoint
    here, CheckpointError when a value cannot be stored. Older checkpoints survive each of them.
    """
    draft = Draft(root, step, identity, attempt, extra, documents or {})
    begin(draft)
    try:
        return complete(draft, state, write_shard(draft.partial, state))
    except BaseException:
        abandon(draft)
        raise


def begin(draft: Draft) -> None:
    """Make an empty folder, on rank 0 before any rank writes, and remove what interrupted saves left.

    Raises StorageError, and RunFolderError when a newer attempt has written a checkpoint here.
    """
    with storage_errors(draft.final):
        draft.root.mkdir(parents=True, exist_ok=True)
        refuse_newer(complete_checkpoints(draft.root), draft.attempt)
        clean_leftovers(draft.root, draft.attempt)
        draft.partial.mkdir()


def write_shard(folder: Path, shard: FullState, part: int = 0, parts: int = 1) -> Entries:
    """Write the tensors of shard number `part` of `parts` into a draft's `partial` folder; returns their entries.

    Raises StorageError.
    """
    with storage_errors(folder):
        return write_tensors(folder, shard, part, parts)


def write_tensors(folder: Path, shard: FullState, part: int = 0, parts: int = 1, weights: bool = True) -> Entries:
    """Write the files of `write_shard`, without the weights where another file holds them. Raises OSError."""
    moments = {f"{key}.{name}": tensor for key, tensors in shard.moments.items() for name, tensor in tensors.items()}
    files = {OPTIMIZER: moments} | ({WEIGHTS: {**shard.weights, **shard.buffers}} if weights else {})
    named = {name_of_part(name, part, parts): tensors for name, tensors in files.items()}
    return {name: write_safetensors(folder / name, tensors) for name, tensors in named.items()}


def complete(draft: Draft, shard: FullState, written: Entries) -> Path:
    """Write on rank 0, once all ranks have written, the other files and the manifest; rename. Raises StorageError."""
    with storage_errors(draft.final):
        files = written | write_facts(draft.partial, shard, draft.extra, draft.documents)
        facts = {"step": draft.step, "attempt": draft.attempt, "identity": draft.identity, "files": files}
        write_manifest(draft.partial, facts)
        sync_folder(draft.partial)
        put_in_place(draft.partial, draft.final)
    return draft.final


def abandon(draft: Draft) -> None:
    """Remove a draft that failed, on rank 0. Errors are ignored: the user must see the first one."""
    shutil.rmtree(draft.partial, ignore_errors=True)


def write_facts(
    folder: Path, shard: FullState, extra: dict[str, Any], documents: Mapping[str, Any], weights_file: str = WEIGHTS
) -> Entries:
    """Write all that is not a tensor; returns the entries. `weights_file` holds the weights. Raises OSError."""
    facts = {
        "buffers": sorted(shard.buffers),
        "moments": sorted(shard.moments),
        "numbers": shard.numbers,
        "groups": shard.groups,
        "counters": shard.counters,
        "shapes": shard.shapes,
        "weights_file": weights_file,
    }
    files = {STATE: {"full_state": facts, "extra": extra}, **documents}
    return {name: write_json(folder / name, value) for name, value in files.items()}


def put_in_place(partial: Path, final: Path) -> None:
    """Rename a finished folder to `final`; a folder of that name is moved aside first. Raises OSError."""
    old = final.with_name(final.name + OLD)
    if final.exists() or final.is_symlink():  # a link may lead nowhere
        final.rename(old)
    partial.rename(final)
    sync_folder(final.parent)
    if old.exists() or old.is_symlink():
        remove_tree(old)
