"""Claims a run folder for one attempt of one run, and refuses the folder of another run."""

import errno
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsys.config.old_words import identity_in_todays_words
from ftsys.errors import (
    ConfigError,
    RunFolderError,
    StorageError,
)
from ftsys.files import atomic_write_json, json_safe, storage_errors
from ftsys.run_folder.attempts import highest_attempt, read_owner, take_attempt
from ftsys.run_folder.status import read_status

Identity = str | Mapping[str, Any]
"""What makes two starts the same run (`ftsys.config.identity_parts`), or a hash of it. Parts make better messages."""


WRITTEN = (
    "config.toml",
    "deepspeed.json",
    "plan.json",
    "env.json",
    "status.json",
    "metrics.jsonl",
    "results.json",
    "trainer_state.json",
    "*_results.json",
    "predict_results_*.txt",
    "report.html",
    "predictions/*.tsv",
    "submission/*.tsv",
    "model/README.md",
    "model/*config.json",
    "model/model*.safetensors",
    "model/model.safetensors.index.json",
    "model/*token*.json",
    "model/vocab.*",
    "model/merges.txt",
    "model/*.model",
    "tensorboard/events.out.tfevents.*",
    "checkpoints/step-[0-9]*",
)
"""What --overwrite removes. Logs stay: the launcher is already writing those of the life that overwrites."""


_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Claim:
    """What a rank knows of the run folder after claiming it.

    `attempt` is this life's number, from 1; 0 on ranks above 0, which learn it from rank 0. `first_attempt` is the life
    that began the run (later than 1 after --overwrite): what earlier ones left is not this run's. `finished` says that
    results.json is there already; then nothing was written and no attempt was made.
    """

    attempt: int
    finished: bool
    first_attempt: int = 1


def claim_run_folder(output_dir: Path | str, identity: Identity, overwrite: bool, rank: int = 0) -> Claim:
    """Make the run folder this life's. Call it on every rank, after the run file was read, before anything is written.

    Rank 0 writes: it takes the next attempt number, and with `overwrite` then removes what the former run wrote there
    (see WRITTEN; files that no run writes stay). The others look only, so what they find does not depend on which rank
    comes first. Raises RunFolderError (77) for a folder of another run, ConfigError (2) for one that cannot be written
    and StorageError (1) for a full disk.
    """
    folder = Path(output_dir)
    owner = _owner(folder, overwrite)
    if not overwrite:
        _refuse_another(folder, owner, identity)
        if owner and _is_finished(folder, owner["first_attempt"]):
            return Claim(owner["attempt"] if rank == 0 else 0, True, owner["first_attempt"])
    if rank != 0:
        return Claim(0, False, owner["first_attempt"] if owner and not overwrite else 1)
    try:
        return _take(folder, identity, overwrite)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _DENIED:
            raise ConfigError(
                f"output_dir={str(folder)!r} cannot be written ({error.__cause__.strerror}). "
                "Name a folder that you may write to."
            ) from error
        raise


def _take(folder: Path, identity: Identity, overwrite: bool) -> Claim:
    """Take the next free attempt number, then make the folder look like it."""
    with storage_errors(folder):
        (folder / "attempts").mkdir(parents=True, exist_ok=True)
    while True:
        before = _owner(folder, overwrite)
        if not overwrite:
            _refuse_another(folder, before, identity)  # again: another start may have come in between
        attempt = highest_attempt(folder) + 1
        first = attempt if overwrite or before is None else before["first_attempt"]
        record = _record(identity, attempt, first)
        if take_attempt(folder, attempt, record):
            break
    if overwrite:
        _remove_written(folder)
    atomic_write_json(folder / "owner.json", record)
    return Claim(attempt, False, first)


def _owner(folder: Path, overwrite: bool) -> dict[str, Any] | None:
    """Whose the folder is; nobody's where the only start was refused before it wrote anything of a run."""
    owner = read_owner(folder, forgive=overwrite)
    if owner is None or (folder / "config.toml").exists():
        return owner
    try:
        status = read_status(folder)
    except RunFolderError:  # damaged: it says nothing, so the owner stands
        return owner
    return None if status is not None and status.state == "refused" else owner


def _record(identity: Identity, attempt: int, first_attempt: int) -> dict[str, Any]:
    return {
        "identity": json_safe(identity),
        "attempt": attempt,
        "first_attempt": first_attempt,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": sys.argv,
        "time": round(time.time(), 3),
    }


def _refuse_another(folder: Path, owner: dict[str, Any] | None, identity: Identity) -> None:
    """RunFolderError if the folder holds another run, or results that nobody owns."""
    remedy = "Name another output_dir, or start anew in this one with --overwrite."
    if owner is None:
        if (folder / "results.json").exists():
            raise RunFolderError(f"run folder {str(folder)!r} holds results.json of an unknown run. {remedy}")
        return
    mine, theirs = json_safe(identity), owner["identity"]
    if isinstance(theirs, dict):
        theirs = identity_in_todays_words(theirs)
    if mine != theirs:
        raise RunFolderError(
            f"run folder {str(folder)!r} belongs to another run: {_differences(mine, theirs)}. {remedy}"
        )


def _differences(mine: Any, theirs: Any) -> str:
    """What differs, by dotted name, at most four."""
    if not (isinstance(mine, dict) and isinstance(theirs, dict)):
        return f"it is {theirs!r}, this one is {mine!r}"
    ours, others = _flat(mine), _flat(theirs)
    names = [name for name in dict.fromkeys([*others, *ours]) if ours.get(name) != others.get(name)]
    told = [f"{name} is {others.get(name)!r} there and {ours.get(name)!r} here" for name in names[:4]]
    return ", ".join(told) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def _is_finished(folder: Path, first_attempt: int) -> bool:
    """Whether results.json is there and of this run, not of one that --overwrite ended before it could remove it."""
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        return int(results.get("attempt", first_attempt)) >= first_attempt
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{str(path)!r} is damaged ({error}). Remove it to go on from the last checkpoint, "
            "or start anew with --overwrite."
        ) from error


def _remove_written(folder: Path) -> None:
    """Remove what a run writes, then the folders that are empty after it."""
    with storage_errors(folder):
        for path in [path for pattern in WRITTEN for path in folder.glob(pattern)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for name in {pattern.split("/")[0] for pattern in WRITTEN if "/" in pattern}:
            if (folder / name).is_dir() and not any((folder / name).iterdir()):
                (folder / name).rmdir()
