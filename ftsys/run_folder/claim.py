"""Claims a run folder for one attempt of one run, and refuses the folder of another run."""

import errno
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsys.config.old_words import identity_in_todays_words
from ftsys.errors import ConfigError, RunFolderError, StorageError
from ftsys.files.atomic import atomic_write_json
from ftsys.files.folders import remove_tree
from ftsys.files.json_safe import json_safe
from ftsys.files.storage_errors import storage_errors
from ftsys.model_files.folder import TOKENIZER_FILES
from ftsys.run_folder.attempts import check_still_ours, highest_attempt, read_owner, take_attempt
from ftsys.run_folder.layout import (
    ADAPTER,
    ATTEMPTS,
    CHECKPOINTS,
    DATA,
    DEEPSPEED,
    ENVIRONMENT,
    EXPORT,
    METRICS_LOG,
    MODEL,
    OWNER,
    PLAN,
    PREDICTIONS,
    RANKS,
    RESULTS,
    RUN_FILE,
    STATUS,
    SUBMISSION,
    TENSORBOARD,
    TRAINER_STATE,
)
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import read_status_after_crash

Identity = str | Mapping[str, Any]
"""The values that two starts of one run have in common (`ftsys.config.identity_parts`), or a hash of them.

Values give better messages than a hash."""

_MODEL_FILES = (
    *("README.md", "*config.json", "calibration.json", "*model*.safetensors", "model.safetensors.index.json"),
    *("*token*.json", "vocab.*", "*.model", *TOKENIZER_FILES),
)
WRITTEN = (
    *(RUN_FILE, DEEPSPEED, PLAN, ENVIRONMENT, DATA, RANKS, STATUS, METRICS_LOG, RESULTS, TRAINER_STATE),
    *("*_results.json", "predict_results_*.txt", "report.html"),
    *(f"{PREDICTIONS}/*.tsv", f"{SUBMISSION}/*.tsv"),
    *(f"{folder}/{pattern}" for folder in (MODEL, ADAPTER) for pattern in _MODEL_FILES),
    *(f"{EXPORT}/{target}" for target in ("onnx", "openvino", "int8")),
    f"{TENSORBOARD}/events.out.tfevents.*",
    f"{CHECKPOINTS}/step-[0-9]*",
)
"""Patterns of the files that --overwrite removes. Logs stay: the launcher already writes those of the new attempt."""
_FOLDERS = (MODEL, ADAPTER, CHECKPOINTS, PREDICTIONS, SUBMISSION, TENSORBOARD)

_DENIED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
    errno.ENOENT,  # /proc and the like: folders cannot be made there
)


@dataclass(frozen=True)
class Claim:
    """The result of claiming a run folder.

    `attempt` is the number of this attempt, from 1; it is 0 on ranks above 0, which get it from rank 0 later.
    `first_attempt` is the attempt that began the run (later than 1 after --overwrite); files of earlier attempts do not
    belong to this run. `finished` is True if results.json was there already: then nothing was written and no attempt
    number was taken.
    """

    attempt: int
    finished: bool
    first_attempt: int = 1


def claim_run_folder(output_dir: Path | str, identity: Identity, overwrite: bool, rank: int = 0) -> Claim:
    """Claim the run folder for a new attempt. Call it on every rank, after reading the run file, before any write.

    Rank 0 writes: it takes the next attempt number and, with `overwrite`, removes the files of the former run (see
    WRITTEN; files that no run writes stay). The other ranks only read, so their result does not depend on the order of
    the ranks. Raises RunFolderError (77) for a folder of another run or of a newer attempt, ConfigError (2) for one
    that cannot be written or has something else where a run writes a folder, and StorageError (1) for a full disk.
    """
    folder = Path(output_dir)
    owner = _owner(folder, overwrite)
    if not overwrite:
        _refuse_another(folder, owner, identity)
        if owner and _is_finished(folder, owner["first_attempt"]):
            return Claim(owner["attempt"] if rank == 0 else 0, True, owner["first_attempt"])
    _refuse_obstacles(folder)
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
    """Take the next free attempt number, then remove a former run's files and write owner.json."""
    with storage_errors(folder):
        (folder / ATTEMPTS).mkdir(parents=True, exist_ok=True)
    while True:
        before = _owner(folder, overwrite)
        if not overwrite:
            _refuse_another(folder, before, identity)  # checked again: another start may have claimed it since
        attempt = highest_attempt(folder) + 1
        first = attempt if overwrite or before is None else before["first_attempt"]
        record = _record(identity, attempt, first)
        if take_attempt(folder, attempt, record):
            break
    if overwrite:
        _remove_written(folder, attempt)
    if highest_attempt(folder) == attempt:
        atomic_write_json(folder / OWNER, record)
    return Claim(attempt, False, first)


def _refuse_obstacles(folder: Path) -> None:
    """Raise ConfigError where a file, or a link that leads nowhere, has the name of a folder that a run writes.

    Without this check the end of the training would find out. --overwrite does not remove what no run has written.
    """
    for path in (folder / name for name in _FOLDERS):
        if os.path.lexists(path) and not path.is_dir():
            kind = "a file" if path.exists() else "a link that leads nowhere"
            raise ConfigError(
                f"{str(path)!r} is {kind}, and the run writes a folder of that name. "
                "Remove it, or name another output_dir."
            )


def _owner(folder: Path, overwrite: bool) -> dict[str, Any] | None:
    """Return the newest attempt's record; None for a free folder.

    A folder is free too if its only start was refused before it wrote any file of a run.
    """
    owner = read_owner(folder, forgive=overwrite)
    if owner is None or (folder / RUN_FILE).exists():
        return owner
    return None if read_status_after_crash(folder).get("state") == "refused" else owner


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
    """Raise RunFolderError if the folder holds another run, or results without an owner."""
    remedy = "Name another output_dir, or start from the beginning in this one with --overwrite."
    if owner is None:
        if (folder / RESULTS).exists():
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
    """List up to four values that differ, by dotted name."""
    if not (isinstance(mine, dict) and isinstance(theirs, dict)):
        return f"it is {theirs!r}, this one is {mine!r}"
    ours, others = _flat(mine), _flat(theirs)
    names = [name for name in dict.fromkeys([*others, *ours]) if ours.get(name) != others.get(name)]
    listed = [f"{name} is {others.get(name)!r} there and {ours.get(name)!r} here" for name in names[:4]]
    return ", ".join(listed) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def _is_finished(folder: Path, first_attempt: int) -> bool:
    """Return True if results.json is there and belongs to this run.

    A start with --overwrite that died before it removed the former run's results leaves results of an earlier attempt.
    """
    results = read_results(folder)
    return results is not None and int(results.get("attempt", first_attempt)) >= first_attempt


def _remove_written(folder: Path, attempt: int) -> None:
    """Remove the files that a run writes, then the folders that are empty after that; links to folders stay.

    Raises RunFolderError once a newer attempt has claimed the folder: what is there then may be that one's.
    """
    with storage_errors(folder):
        for path in [path for pattern in WRITTEN for path in folder.glob(pattern)]:
            check_still_ours(folder, attempt)
            with suppress(FileNotFoundError):  # an older start that has not noticed yet removes the same
                remove_tree(path)
        for path in {folder / pattern.split("/")[0] for pattern in WRITTEN if "/" in pattern}:
            if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()
