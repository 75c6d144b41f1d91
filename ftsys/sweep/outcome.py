"""Derives the end of a trial from its exit status, its run folder, and what its start added to its log."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftsys.errors import DONE, NOT_OURS, STOPPED_EARLY, is_of_signal
from ftsys.run_folder.attempts import highest_attempt
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import read_status_after_crash
from ftsys.sweep.settings import Sweep

MOST_LINES = 5
"""Lines of a trial's log that its reason may have."""


@dataclass(frozen=True)
class Outcome:
    """Describes how a trial ended. A stopped one goes on at the next start; a lost one has been taken over."""

    state: Literal["complete", "pruned", "fail", "stopped", "lost"]
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Start:
    """Holds what a start of a trial found: the newest attempt in its run folder, and the bytes of its log."""

    folder: Path
    attempt: int
    log: Path
    log_bytes: int


def about_to_start(folder: Path, log: Path) -> Start:
    """Note what is there before the start of a trial."""
    return Start(folder, highest_attempt(folder), log, log.stat().st_size if log.exists() else 0)


def outcome_of(exit_status: int, sweep: Sweep, start: Start, pruned: bool, told_to_stop: bool = False) -> Outcome:
    """Return the end of the trial, for a process that still holds its claim.

    A trial that was told to stop before it could handle signals, or that took too long to save, has ended by a signal.
    """
    if exit_status == DONE:
        results = read_results(start.folder) or {}
        value = results.get("metrics", {}).get(sweep.split, {}).get(sweep.objective)
        if value is None:
            return Outcome("fail", reason=f"{sweep.objective} is undefined")
        return Outcome("complete", float(value))
    if pruned:
        return Outcome("pruned")
    if exit_status == STOPPED_EARLY or (told_to_stop and is_of_signal(exit_status)):
        return Outcome("stopped")
    if exit_status == NOT_OURS and _is_taken_over(start):
        return Outcome("lost")
    return Outcome("fail", reason=_reason(exit_status, start))


def _is_taken_over(start: Start) -> bool:
    """Return True if a newer attempt than this start's owns the run folder.

    A start that was refused took no attempt: the next one would be refused too. One that took the newest attempt, and
    then found that the folder is not its own, has written so.
    """
    newest, status = highest_attempt(start.folder), read_status_after_crash(start.folder)
    refused = status.get("attempt") == newest and status.get("exit") == NOT_OURS
    return newest > start.attempt and not refused


def _reason(exit_status: int, start: Start) -> str:
    """Return the reason in status.json if this start wrote it, else the error at the end of the log."""
    status = read_status_after_crash(start.folder)
    if status.get("attempt", 0) > start.attempt and status.get("reason"):
        return str(status["reason"])
    told = ": ".join(filter(None, [f"exit status {exit_status}", _last_error(start)]))
    return f"{told} In a sweep: use another --output." if exit_status == NOT_OURS else told


def _last_error(start: Start) -> str:
    """Return the last `error:` of the log and what follows it, or the last line of a log without one, as one line."""
    with start.log.open("rb") as stream:
        stream.seek(start.log_bytes)
        lines = stream.read().decode(errors="replace").strip().splitlines()
    begins = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    kept = lines[begins[-1] :][:MOST_LINES] if begins else lines[-1:]
    return " ".join(" ".join(kept).removeprefix("error: ").split())
