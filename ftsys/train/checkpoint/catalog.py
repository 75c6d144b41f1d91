"""Finds, opens, verifies and prunes a run's checkpoints: a folder for each step, whole or not there.

Any world size and ZeRO stage can read them.

    checkpoints/step-000345/weights.safetensors     fp32 master weights and buffers, by the plain model's names
                            optimizer.safetensors   moments, as "exp_avg.<parameter>"
                            ...-00001-of-00002...   the same two files for each rank, where several wrote
                            state.json              everything else
                            manifest.json           format, attempt, step, identity, sizes, sha256; written last

A folder is written as `step-N.tmp-<attempt>`, flushed and renamed. When the same step is saved again, the older folder
is renamed to `.old` until the new one has its name (writer.py). No pickle is written or read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from ftsys.errors import CheckpointError, RunFolderError
from ftsys.files.folders import remove_tree
from ftsys.files.integrity import damage_of, unlisted
from ftsys.files.storage_errors import storage_errors
from ftsys.files.untrusted import FileEntries
from ftsys.run_folder.layout import TRAINER_STATE
from ftsys.train.checkpoint.files import check_safetensors, read_json, read_safetensors
from ftsys.train.checkpoint.manifest import MANIFEST, OPTIMIZER, STATE, WEIGHTS, parts_of, read_facts
from ftsys.train.checkpoint.training_state import FullState, StateFacts, TrainerFacts, joined

if TYPE_CHECKING:
    from torch import Tensor

COMPLETE_NAME = re.compile(r"step-(\d{6,})")
TEMPORARY_NAME = re.compile(r"step-\d{6,}\.tmp-(\d+)")
OLD, GONE = ".old", ".gone"


def step_folder(root: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return root / f"step-{step:06d}"


def is_leftover(name: str) -> bool:
    """Return True for the name of a folder that is being written or removed, or that such a work has left."""
    return TEMPORARY_NAME.fullmatch(name) is not None or name.endswith((OLD, GONE))


class _State(TypedDict):
    full_state: StateFacts
    extra: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint folder, as its manifest describes it."""

    path: Path
    step: int
    attempt: int
    identity: str
    files: FileEntries

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read a folder's manifest and no other file. Raises CheckpointError when it is missing or damaged."""
        facts = read_facts(path)
        found = COMPLETE_NAME.fullmatch(path.name)
        if found and int(found[1]) != facts["step"]:
            raise CheckpointError(f"{path} holds step {facts['step']}: it was renamed; give it its own name back")
        return cls(path, facts["step"], facts["attempt"], facts["identity"], facts["files"])

    @property
    def extra(self) -> dict[str, Any]:
        """JSON values that the caller saved together with the model and optimizer."""
        return self._state["extra"]

    def load_state(self) -> FullState:
        """Return the model and optimizer, memory-mapped: only bytes that are used are read. See `verify_checkpoint`."""
        facts = self._state["full_state"]
        state = FullState(
            numbers=facts["numbers"], groups=[dict(group) for group in facts["groups"]], counters=facts["counters"]
        )
        shapes = facts.get("shapes", {})
        for name, tensor in joined(self._tensors(facts.get("weights_file", WEIGHTS)), shapes).items():
            (state.buffers if name in facts["buffers"] else state.weights)[name] = tensor
        moments: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self._tensors(OPTIMIZER).items():
            key = max((key for key in facts["moments"] if name.startswith(f"{key}.")), key=len, default=None)
            if key is None:
                raise CheckpointError(f"{self.path / STATE} names no moment of {name!r}: take another checkpoint")
            moments.setdefault(key, {})[name.removeprefix(f"{key}.")] = tensor
        state.moments = {key: joined(tensors, shapes) for key, tensors in moments.items()}
        return state

    def damage(self) -> list[str]:
        """Return a line for each file that differs from the manifest, or else for the first with wrong content."""
        lines = damage_of(self.path, self.files)
        try:
            if not lines:
                self.check_content()
        except CheckpointError as error:
            return [str(error)]
        return lines

    def check_content(self) -> None:
        """Check the types of the states and the headers of the tensors. Raises CheckpointError.

        Whoever can write the folder can make its hashes right. transformers reads its state also where the manifest
        does not list it. A model that was split since is left out.
        """
        self._files_of(self._state["full_state"].get("weights_file", WEIGHTS))
        if TRAINER_STATE in self.files or (self.path / TRAINER_STATE).exists():
            read_json(self.path / TRAINER_STATE, TrainerFacts)
        for name in self.files:
            if name.endswith(".safetensors") and (self.path / name).exists():
                check_safetensors(self.path / name)

    def _tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a file, or of the parts of it that the ranks wrote."""
        files = self._files_of(name)
        return {key: tensor for part in files for key, tensor in read_safetensors(self.path / part).items()}

    def _files_of(self, name: str) -> list[str]:
        try:
            return parts_of(name, self.files, self.path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {STATE} names it") from error

    @cached_property
    def _state(self) -> _State:
        """Read once: another attempt of the run, which is still alive, may remove the folder at any time."""
        state: _State = read_json(self.path / STATE, _State)
        return state


def refuse_newer(found: list[Checkpoint], attempt: int | None) -> None:
    """Raise RunFolderError where a checkpoint was written by a later attempt than `attempt`."""
    newer = [checkpoint for checkpoint in found if attempt is not None and checkpoint.attempt > attempt]
    if newer:
        raise RunFolderError(
            f"{newer[-1].path} was written by attempt {newer[-1].attempt} of this run, this is attempt {attempt}: a "
            "newer attempt is running or has run; end this one"
        )


def clean_leftovers(root: Path, attempt: int) -> None:
    """Remove what interrupted saves of this and earlier attempts left; put back a folder that a save had moved aside.

    For rank 0 at the start of an attempt, before `newest_checkpoint`; each save does it too. Raises StorageError.
    """
    if not root.is_dir():
        return
    with storage_errors(root):
        for path in sorted(root.iterdir()):
            temporary = TEMPORARY_NAME.fullmatch(path.name)
            if path.suffix == GONE or (temporary and int(temporary[1]) <= attempt):
                remove_tree(path)
            elif path.suffix == OLD:
                put_back(path)


def put_back(aside: Path) -> None:
    """Give a folder that a save moved aside its name again; remove it where another folder has that. Raises OSError."""
    final = aside.with_suffix("")
    if final.exists():
        remove_tree(aside)
    else:
        final.unlink(missing_ok=True)  # a link that leads nowhere has the name
        with suppress(FileNotFoundError):  # an older attempt has not noticed yet that it is one, and did the same
            aside.rename(final)


def complete_checkpoints(root: Path) -> list[Checkpoint]:
    """Return checkpoints with a whole manifest and files of the right sizes, oldest first; their bytes are not read.

    A later attempt counts as newer than any earlier one, whatever the steps.
    """
    found = []
    for path in _step_folders(root):
        try:
            checkpoint = Checkpoint.open(path)
        except CheckpointError:
            continue
        if not damage_of(path, checkpoint.files, contents=False):
            found.append(checkpoint)
    return sorted(found, key=_age)


def _age(checkpoint: Checkpoint) -> tuple[int, int]:
    return checkpoint.attempt, checkpoint.step


def _step_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if COMPLETE_NAME.fullmatch(path.name) and path.is_dir())


def newest_checkpoint(
    root: Path, identity: str, attempt: int | None = None, say: Callable[[str], object] = print
) -> Checkpoint | None:
    """Return the newest checkpoint that passes `verify_checkpoint`, or None.

    `say` is called with the choice, its reason, and what was skipped. Every byte of the chosen one is read, so rank 0
    alone should call this; the others `Checkpoint.open` its path. Raises
    CheckpointError when the newest is another run's, RunFolderError when it is a later attempt's than `attempt`.
    """
    taken = None
    candidates = []
    for path in _step_folders(root):
        try:
            candidates.append(Checkpoint.open(path))
        except CheckpointError as error:
            say(f"skipped {path}: {error}")
    for checkpoint in sorted(candidates, key=_age, reverse=True):
        refuse_newer([checkpoint], attempt)
        _refuse_other(checkpoint, identity)
        damage = checkpoint.damage()
        if not damage:
            taken = checkpoint
            break
        say(f"skipped {checkpoint.path}: {'; '.join(damage)}")
    if taken is not None:
        say(
            f"resuming from {taken.path}: step {taken.step} of attempt {taken.attempt}, the newest complete one of "
            f"{len(candidates)}; all its bytes match the manifest"
        )
    elif _step_folders(root):
        say(f"no complete checkpoint is left in {root}: starting from step 0")
    return taken


def named_checkpoint(path: Path, identity: str, contents: bool = True) -> Checkpoint:
    """Return the checkpoint that the user named, verified; without `contents` by the sizes of its files alone.

    Raises CheckpointError if it is damaged or another run's.
    """
    checkpoint = Checkpoint.open(path)
    _refuse_other(checkpoint, identity)
    damage = checkpoint.damage() if contents else damage_of(path, checkpoint.files, contents=False)
    if damage:
        raise CheckpointError(f'train.resume={str(path)!r} is damaged: {"; ".join(damage)}. Name another, or "auto".')
    return checkpoint


def _refuse_other(checkpoint: Checkpoint, identity: str) -> None:
    if checkpoint.identity != identity:
        raise CheckpointError(
            f"{checkpoint.path} belongs to another run: its identity is {checkpoint.identity!r}, this run's is "
            f"{identity!r}, so the task, data, model, batch, train section or seed differ. Use another output_dir, or "
            'set train.resume = "never" to start from step 0'
        )


def verify_checkpoint(path: Path) -> list[str]:
    """Read every byte of a checkpoint; returns a line for each damage, none when it is whole.

    A file that the manifest does not list counts too: a library might read it.
    """
    try:
        checkpoint = Checkpoint.open(path)
    except CheckpointError as error:
        return [str(error)]
    return checkpoint.damage() + [
        f"{path / name} is not in {MANIFEST}: remove it, or keep it elsewhere"
        for name in unlisted(path, {*checkpoint.files, MANIFEST})
    ]


def prune_checkpoints(root: Path, keep: int, best: int | None = None) -> list[Path]:
    """Remove all checkpoints but the `keep` newest complete ones and that of step `best`; returns what was removed.

    Damaged folders are removed too, once there is a complete checkpoint. A folder is renamed before it is emptied, so
    that no checkpoint is ever half there. Raises StorageError.
    """
    complete = complete_checkpoints(root)
    kept = {checkpoint.path for checkpoint in complete[-max(keep, 1) :]}
    kept |= {checkpoint.path for checkpoint in complete if checkpoint.step == best}
    removed = [path for path in _step_folders(root) if kept and path not in kept]
    with storage_errors(root):
        for path in removed:
            gone = path.with_name(path.name + GONE)
            with suppress(FileNotFoundError):  # another attempt removes the same
                path.rename(gone)
            remove_tree(gone)
    return removed
