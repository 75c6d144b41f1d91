"""Reads and writes status.json: the state of a run and the exit status of its newest attempt.

    {state, exit, reason, phase, step, attempt, time}

Only the newest attempt writes it. Times are in seconds since 1970.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from ftsys.errors import (
    BAD_INPUT,
    DONE,
    FAILED,
    HUNG,
    NOT_OURS,
    STOPPED_EARLY,
    DamagedError,
)
from ftsys.files.atomic import atomic_write_json
from ftsys.files.untrusted import file_bytes, json_object, typed
from ftsys.run_folder.attempts import highest_attempt
from ftsys.run_folder.layout import STATUS

State = Literal["running", "done", "failed", "refused", "stopped", "hung", "lost"]

STATE_OF: Mapping[int, State] = {
    DONE: "done",
    FAILED: "failed",
    BAD_INPUT: "refused",
    STOPPED_EARLY: "stopped",
    HUNG: "hung",
    NOT_OURS: "lost",
}
"""The state for each exit status."""


@dataclass(frozen=True)
class Status:
    """The content of status.json.

    `exit` is the exit status, None while the run goes on. `phase` is the current activity, such as "prepare" or
    "train". `step` is the number of optimizer steps at the last write. `time` is in seconds since 1970.
    """

    state: State
    exit: int | None
    reason: str
    phase: str
    step: int
    attempt: int
    time: float


def write_status(
    output_dir: Path | str,
    state: State,
    exit: int | None,  # noqa: A002
    reason: str,
    phase: str,
    step: int,
    attempt: int,
) -> bool:
    """Replace status.json atomically. Returns False, and writes nothing, if the folder belongs to another attempt.

    Raises StorageError.
    """
    if attempt < 1 or highest_attempt(output_dir) != attempt:
        return False
    status = Status(state, exit, reason, phase, step, attempt, round(time.time(), 3))
    atomic_write_json(Path(output_dir) / STATUS, asdict(status))
    return True


def read_status(output_dir: Path | str) -> Status | None:
    """Read status.json; None if there is no such file. Raises DamagedError if it is damaged."""
    path = Path(output_dir) / STATUS
    try:
        return typed(Status, json_object(file_bytes(path)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, ValueError) as error:
        raise DamagedError(
            f"{str(path)!r} is damaged ({error}). Start the run again, which writes a new one."
        ) from error


def read_status_after_crash(output_dir: Path | str) -> dict[str, Any]:
    """Read the fields of status.json, as many as there are with a value of their type; {} if it is missing or damaged.

    For programs that must come to a conclusion in any case: a missing file and a damaged one mean the same to them.
    """
    try:
        found = json_object(file_bytes(Path(output_dir) / STATUS))
    except (OSError, ValueError):
        return {}
    kinds = get_type_hints(Status)
    return {name: value for name, value in found.items() if name in kinds and _is(kinds[name], value)}


def _is(kind: Any, value: object) -> bool:
    try:
        typed(kind, value)
    except ValueError:
        return False
    return True


def exit_of_this_start(folder: Path, before: int) -> int | None:
    """Return the exit status in status.json if the attempt of a start wrote it; else None.

    `before`: the run folder's highest attempt before the start, which takes the next one: later ones are of other
    starts.
    """
    status = read_status_after_crash(folder)
    return status.get("exit") if status.get("attempt") == before + 1 else None
