"""Reads how a cell stands from its run folder: there is no other record of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftsys.config import identity_parts
from ftsys.errors import BAD_INPUT, NOT_OURS, DamagedError, RunFolderError
from ftsys.files.atomic import atomic_write_json
from ftsys.files.lease import seems_held
from ftsys.files.untrusted import file_bytes, json_object, typed
from ftsys.run_folder.attempts import highest_attempt
from ftsys.run_folder.claim import claim_run_folder
from ftsys.run_folder.layout import LOGS
from ftsys.run_folder.status import read_status_after_crash
from ftsys.table.cells import CELL_FILE, Cell

FAILURES = "failures.json"
"""File in a cell's run folder: the exit status of each attempt that failed, by its number; and FORGIVEN."""
FORGIVEN = "forgiven"
"""Key of FAILURES: the last attempt whose failure `--retry` has forgiven, which status.json still tells."""
LOG = f"{LOGS}/table.log"
"""File in a cell's run folder with all that its attempts printed."""

MOST_FAILURES = 2
"""A cell that failed this often is not tried again."""

_CHECK_ONLY = 1  # as the rank: the folder is checked and nothing is written


StateName = Literal["done", "running", "failed", "failed once", "stopped", "to do", "refused"]
"""States of a cell; "refused" is known only to the process whose start found the folder of another run."""


@dataclass(frozen=True)
class CellState:
    """The state of a cell. `failures` counts the attempts that failed; `reason` says why the last one did."""

    name: StateName
    failures: int = 0
    reason: str = ""

    @property
    def is_settled(self) -> bool:
        """True if nothing is left to do for this cell."""
        return self.name in ("done", "failed")

    def retried(self) -> "CellState":
        """Return the state as `--retry` makes it, where no failure counts."""
        return CellState("stopped") if self.failures and self.name != "running" else self


def lease_base(cell: Cell) -> Path:
    """Return the path of the lease that the process which trains a cell holds."""
    return cell.folder / CELL_FILE


def check_folders(cells: Sequence[Cell]) -> None:
    """Raise RunFolderError that names every cell whose folder holds a run of other settings, or cannot be read.

    It is a DamagedError where all of them only have damaged files.
    """
    wrong: list[RunFolderError] = []
    for cell in cells:
        try:
            claim_run_folder(cell.folder, identity_parts(cell.run), False, rank=_CHECK_ONLY)
            failures_of(cell.folder)
        except RunFolderError as error:
            wrong.append(error)
    if wrong:
        told = [str(error).replace(" with --overwrite", ", without this folder") for error in wrong[:5]]
        more = [f"(and {len(wrong) - 5} more folders)"] if len(wrong) > 5 else []
        kind = DamagedError if all(isinstance(error, DamagedError) for error in wrong) else RunFolderError
        raise kind("\n".join([*told, *more]))


def state_of(cell: Cell, ours: bool = False, record: bool = True) -> CellState:
    """Return the state of a cell; `ours`: this process holds its lease. Raises RunFolderError for another run.

    With `record`, a failure that only status.json tells is recorded. Raises StorageError where it cannot be.
    """
    claim = claim_run_folder(cell.folder, identity_parts(cell.run), False, rank=_CHECK_ONLY)
    if claim.finished:
        return CellState("done")
    held = not ours and seems_held(lease_base(cell))
    known = noted = _noted(cell.folder)
    if not held:
        known = _with_status(cell.folder, noted)
    if record and known != noted:
        atomic_write_json(cell.folder / FAILURES, known)
    failures = _attempts_in(known)
    name, reason = _name(cell.folder, failures), _reason(cell.folder, failures)
    return CellState("running" if held else name, len(failures), reason)


def refused(cell: Cell) -> CellState:
    """Return the state of a cell whose start has just ended with NOT_OURS: the end of its log says why."""
    return CellState("refused", len(failures_of(cell.folder)), _told(cell.folder, NOT_OURS))


def _name(folder: Path, failures: dict[str, int]) -> StateName:
    if len(failures) >= MOST_FAILURES or BAD_INPUT in failures.values():
        return "failed"
    if failures:
        return "failed once"
    return "stopped" if read_status_after_crash(folder) else "to do"


def _with_status(folder: Path, known: dict[str, int]) -> dict[str, int]:
    """Return what is recorded, and a failure that nobody has recorded, as that of a SLURM job: status.json says so."""
    status, attempt = read_status_after_crash(folder), highest_attempt(folder)
    failed = status.get("state") in ("failed", "hung", "refused") and status.get("attempt") == attempt
    if not failed or str(attempt) in known or attempt <= known.get(FORGIVEN, -1):
        return known
    return known | {str(attempt): int(status.get("exit") or 1)}


def note_failure(folder: Path, exit_status: int) -> None:
    """Record that the newest attempt failed, or that a start failed before it took a number. Raises StorageError."""
    known, attempt = _noted(folder), highest_attempt(folder)
    before_its_number = str(attempt) in known or attempt <= known.get(FORGIVEN, -1)
    name = f"{attempt}, start {len(failures_of(folder)) + 1}" if before_its_number else str(attempt)
    atomic_write_json(folder / FAILURES, known | {name: exit_status})


def failures_of(folder: Path) -> dict[str, int]:
    """Return the exit status of each failed attempt, by its number as text. Raises DamagedError."""
    return _attempts_in(_noted(folder))


def _attempts_in(noted: dict[str, int]) -> dict[str, int]:
    return {name: status for name, status in noted.items() if name != FORGIVEN}


def _noted(folder: Path) -> dict[str, int]:
    """Read FAILURES. Raises DamagedError."""
    path = folder / FAILURES
    try:
        return typed(dict[str, int], json_object(file_bytes(path)))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DamagedError(f"{str(path)!r} is damaged ({error}). Remove it: its cell is then tried again.") from error


def forget_failures(cell: Cell) -> None:
    """Make a failed cell one that is tried again: no attempt up to its last failure counts. Raises StorageError."""
    if state_of(cell).failures:
        numbers = [name.partition(",")[0] for name in failures_of(cell.folder)]
        last = max((int(number) for number in numbers if number.isdecimal()), default=highest_attempt(cell.folder))
        atomic_write_json(cell.folder / FAILURES, {FORGIVEN: last})


def _reason(folder: Path, failures: dict[str, int]) -> str:
    """Return the reason of the last failure: that of status.json, or the last line of the log."""
    if not failures:
        return ""
    attempt, exit_status = list(failures.items())[-1]
    status = read_status_after_crash(folder)
    if str(status.get("attempt")) == attempt and status.get("reason"):
        return " ".join(str(status["reason"]).split())
    return _told(folder, exit_status)


def _told(folder: Path, exit_status: int) -> str:
    """Return how a process ended, with the last line that it printed."""
    told = f"ended by signal {-exit_status}" if exit_status < 0 else f"exit status {exit_status}"
    return " ".join(filter(None, [f"{told}:", _last_line(folder / LOG)]))


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1] if lines else ""
