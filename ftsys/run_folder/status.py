"""Whose a run folder is, which life of the run writes into it, and how the run stands.

    attempts/000003.json   one a start (see ftsys.run_folder.attempts)
    owner.json             the newest of them, for people and tools
    status.json            {state, exit, reason, phase, step, attempt, time}

A former life that was cut off and still runs finds a higher attempt than its own and stops with 77. Times are seconds
since 1970.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ftsys.errors import (
    BAD_INPUT,
    DONE,
    FAILED,
    HUNG,
    NOT_OURS,
    STOPPED_EARLY,
    RunFolderError,
)
from ftsys.files import atomic_write_json
from ftsys.run_folder.attempts import highest_attempt

State = Literal["running", "done", "failed", "refused", "stopped", "hung", "lost"]

STATE_OF: Mapping[int, State] = {
    DONE: "done",
    FAILED: "failed",
    BAD_INPUT: "refused",
    STOPPED_EARLY: "stopped",
    HUNG: "hung",
    NOT_OURS: "lost",
}
"""The state that goes with an exit status."""


@dataclass(frozen=True)
class Status:
    """How a run stands. `exit` is None while it runs; `phase` is what it was doing, as "prepare" or "train"."""

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
    """Write status.json at once. False, and nothing written, if the folder is another life's: its status stays.

    Raises StorageError.
    """
    if attempt < 1 or highest_attempt(output_dir) != attempt:
        return False
    status = Status(state, exit, reason, phase, step, attempt, round(time.time(), 3))
    atomic_write_json(Path(output_dir) / "status.json", asdict(status))
    return True


def read_status(output_dir: Path | str) -> Status | None:
    """What status.json says; None if there is none yet. Raises RunFolderError if it is damaged."""
    path = Path(output_dir) / "status.json"
    try:
        return Status(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise RunFolderError(f"{str(path)!r} is damaged ({error}). Start the run again to write it anew.") from error


def newest_attempt(folder: Path) -> int:
    """The number of the run folder's newest life; 0 if there was none."""
    return max((int(path.stem) for path in folder.glob("attempts/*.json") if path.stem.isdecimal()), default=0)


def exit_of_this_start(folder: Path, before: int) -> int | None:
    """The exit status in status.json if a life after attempt `before` wrote one; else None."""
    try:
        status: dict[str, Any] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: then it says nothing
        return None
    return status.get("exit") if status.get("attempt", 0) > before else None
