"""Runs one trial: an ordinary `ftsys train` in a process of its own, whose evaluations Optuna may end early."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ftsys.console.child_python import python_command
from ftsys.files.folders import remove_tree
from ftsys.run_folder.layout import CHECKPOINTS, METRICS_LOG
from ftsys.run_folder.metrics_log import read_metrics
from ftsys.sweep.outcome import Outcome, about_to_start, outcome_of
from ftsys.sweep.settings import Sweep
from ftsys.sweep.space import overrides_of
from ftsys.sweep.study import Claimed
from ftsys.train.fault_tolerance.signals import Interruption

POLL_SECONDS, LEAVE_SECONDS = 0.2, 60.0
"""Time between two looks at a trial's evaluations, and the time that it has to save and leave after a signal."""


def folder_of(sweep: Sweep, number: int) -> Path:
    """Return the run folder of a trial."""
    return sweep.folder / f"trial-{number}"


def run_trial(sweep: Sweep, claimed: Claimed, interruption: Interruption, command: Sequence[str]) -> Outcome:
    """Run a trial to its end, or until it is pruned, or this process is told to stop."""
    folder, log = folder_of(sweep, claimed.trial.number), sweep.folder / "logs" / f"trial-{claimed.trial.number}.log"
    log.parent.mkdir(exist_ok=True)
    start = about_to_start(folder, log)
    with log.open("ab") as stream:
        process = _started(sweep, claimed, folder, command, stream.fileno())
        try:
            pruned = _follow(process, sweep, claimed, folder, interruption)
        finally:
            _end(process)
    if claimed.claim.lost:  # the run that was stopped here goes on elsewhere
        return Outcome("lost")
    outcome = outcome_of(process.returncode, sweep, start, pruned, interruption.wanted)
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
        python_command("-m", "ftsys.sweep.child", str(os.getpid()), *words),
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
