"""Runs a sweep in one process: trial after trial, until the study has as many as it should."""

import time
from collections.abc import Sequence

from ftsys.console.printer import say
from ftsys.data.prepare import ensure_store
from ftsys.errors import FtsysError
from ftsys.files.storage_errors import storage_errors
from ftsys.report.log_filters import quiet_libraries
from ftsys.report.progress import SplitProgress
from ftsys.sweep.outcome import Outcome
from ftsys.sweep.results import best_of, show_trials, write_best
from ftsys.sweep.settings import Sweep
from ftsys.sweep.study import Claimed, SharedStudy
from ftsys.sweep.trial import run_trial
from ftsys.train.fault_tolerance.signals import Interruption

WAIT_SECONDS = 2.0
"""Time between two looks at trials of other processes, of which each may die and leave its trial to this one."""


def run_sweep(sweep: Sweep, command: Sequence[str]) -> None:
    """Run trials until all of the study have ended; then print the table.

    Raises StoppedEarly after a signal, with the running trial saved; FtsysError if no trial has finished; StorageError
    if the sweep's folder cannot be written.
    """
    quiet_libraries()
    interruption = Interruption()
    with interruption.watching():
        with SplitProgress("prepare") as progress:
            ensure_store(sweep.run, sweep.task, progress)
        with storage_errors(sweep.folder):
            shared = SharedStudy(sweep)
            interruption.deferred = True
            while (claimed := _next(shared, interruption)) is not None:
                with claimed.claim:
                    _try(shared, claimed, interruption, command)
    show_trials(shared)
    if best_of(shared) is None:
        raise FtsysError(f"no trial has finished: see {sweep.folder / 'logs'}")


def _next(shared: SharedStudy, interruption: Interruption) -> Claimed | None:
    """Return the next trial. While other processes run the last ones, wait: a process that dies leaves its trial."""
    waiting = False
    while True:
        if interruption.wanted:
            raise interruption.error()
        claimed = shared.next_trial()
        running = shared.running()
        if claimed is not None or not running:
            return claimed
        if not waiting:
            say(f"waiting for {len(running)} trials of other processes")
            waiting = True
        time.sleep(WAIT_SECONDS)


def _try(shared: SharedStudy, claimed: Claimed, interruption: Interruption, command: Sequence[str]) -> None:
    number, sweep = claimed.trial.number, shared.sweep
    sweep.check_unchanged()
    values = ", ".join(f"{key} = {value}" for key, value in claimed.values.items())
    say(f"trial {number} of {shared.total}{' (taken over)' if claimed.taken_over else ''}: {values}")
    outcome = run_trial(sweep, claimed, interruption, command)
    if outcome.state in ("stopped", "lost"):
        if interruption.wanted or outcome.state == "stopped":
            raise interruption.error()
        say(f"trial {number}: another process has taken it over")
        return
    shared.end(claimed, outcome.state, outcome.value, outcome.reason)
    sweep.check_unchanged()
    with shared.locked():
        write_best(shared)
    say(f"trial {number}: {_told(sweep, outcome)}{_best_so_far(shared)}")
    if outcome.state == "fail" and best_of(shared) is None:
        reason = outcome.reason.rstrip(".")
        raise FtsysError(f"trial {number} failed before any other had finished: {reason}. See its log.")


def _told(sweep: Sweep, outcome: Outcome) -> str:
    if outcome.state == "complete":
        return f"{sweep.objective} {outcome.value:.4f}"
    return "pruned" if outcome.state == "pruned" else f"failed: {outcome.reason}"


def _best_so_far(shared: SharedStudy) -> str:
    best = best_of(shared)
    return "" if best is None else f" (best: trial {best.number}, {best.value:.4f})"
