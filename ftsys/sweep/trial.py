"""Runs one trial: an ordinary `ftsys train` in a process of its own, whose evaluations Optuna may end early."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftsys.errors import DONE, NOT_OURS, STOPPED_EARLY
from ftsys.files import remove_tree
from ftsys.run_folder.layout import CHECKPOINTS, METRICS_LOG
from ftsys.run_folder.metrics_log import read_metrics
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import read_status
from ftsys.sweep.settings import Sweep
from ftsys.sweep.space import overrides_of
from ftsys.sweep.study import Claimed
from ftsys.train.fault_tolerance.signals import Interruption

POLL_SECONDS, LEAVE_SECONDS = 0.2, 60.0
"""Time between two looks at a trial's evaluations, and the time that it has to save and leave after a signal."""


@dataclass(frozen=True)
class Outcome:
    """Describes how a trial ended. A stopped one goes on at the next start; a lost one has been taken over."""

    state: Literal["complete", "pruned", "fail", "stopped", "lost"]
    value: float | None = None
    reason: str = ""


def folder_of(sweep: Sweep, number: int) -> Path:
    """Return the run folder of a trial."""
    return sweep.folder / f"trial-{number}"


def run_trial(sweep: Sweep, claimed: Claimed, interruption: Interruption, command: Sequence[str]) -> Outcome:
    """Run a trial to its end, or until it is pruned, or this process is told to stop."""
    folder, log = folder_of(sweep, claimed.trial.number), sweep.folder / "logs"
    log.mkdir(exist_ok=True)
    with (log / f"trial-{claimed.trial.number}.log").open("ab") as stream:
        process = _started(sweep, claimed, folder, command, stream.fileno())
        try:
            pruned = _follow(process, sweep, claimed, folder, interruption)
        finally:
            _end(process)
    if claimed.claim.lost:  # the run that was stopped here goes on elsewhere
        return Outcome("lost")
    outcome = _outcome(process.returncode, sweep, folder, pruned)
    if outcome.state in ("complete", "pruned"):
        remove_tree(folder / CHECKPOINTS)
    return outcome


def _started(
    sweep: Sweep, claimed: Claimed, folder: Path, command: Sequence[str], log: int
) -> "subprocess.Popen[bytes]":
    """Start the run in a session of its own, so that Ctrl-C reaches it once, through this process."""
    words = [
        *command,
        str(sweep.run_file),
        *sweep.overrides,
        "--output_dir",
        str(folder),
        *overrides_of(claimed.values),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "ftsys.sweep.child", str(os.getpid()), *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={**os.environ, "FTSYS_TASKS": "alone"},  # a task of srun or mpirun: the trials are not its ranks
    )


def _follow(
    process: "subprocess.Popen[bytes]", sweep: Sweep, claimed: Claimed, folder: Path, interruption: Interruption
) -> bool:
    """Report evaluations while the run goes on; returns True if it was pruned."""
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        if interruption.wanted or claimed.claim.lost:
            return False
        if _report(sweep, claimed, folder) and claimed.trial.should_prune():
            return True
    _report(sweep, claimed, folder)
    return False


def _report(sweep: Sweep, claimed: Claimed, folder: Path) -> bool:
    """Report the evaluations that Optuna does not have yet; returns True if there is a new one.

    An evaluation's step is its number, from 1: trials with other batches have other steps at the same time.
    """
    lines = [line for line in read_metrics(folder / METRICS_LOG) if line.get("split") == sweep.split]
    known = claimed.trial.storage.get_trial(claimed.trial._trial_id).intermediate_values
    for number, line in enumerate(lines, start=1):
        if number not in known and line.get(sweep.objective) is not None:
            claimed.trial.report(float(line[sweep.objective]), number)
    return len(lines) > len(known)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Have the run save and leave, if it is still there."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _outcome(exit_status: int, sweep: Sweep, folder: Path, pruned: bool) -> Outcome:
    if exit_status == DONE:
        results = read_results(folder) or {}
        value = results.get("metrics", {}).get(sweep.split, {}).get(sweep.objective)
        if value is None:
            return Outcome("fail", reason=f"{sweep.objective} is undefined")
        return Outcome("complete", float(value))
    if pruned:
        return Outcome("pruned")
    if exit_status == STOPPED_EARLY:
        return Outcome("stopped")
    if exit_status == NOT_OURS:
        return Outcome("lost")
    status = read_status(folder)
    reason = status.reason if status is not None and status.reason else f"exit status {exit_status}"
    return Outcome("fail", reason=reason)
