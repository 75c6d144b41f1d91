"""Reports how a start ended: the rank that failed first, the lines shown at the end, and `ftlaunch`'s exit status.

The exit status in status.json counts, if a rank of this start wrote it: launchers hide exit statuses. A rank that was
killed writes none. The agents add what nobody else can know: the order in which the ranks ended, and how.
"""

import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ftsys.errors import BAD_INPUT, DONE, FAILED, HUNG, NOT_OURS, STOPPED_EARLY
from launcher.log_files import newest_part

SHARED_STATUSES = (BAD_INPUT, STOPPED_EARLY, HUNG, NOT_OURS)
"""Exit statuses with a meaning of their own. Usually all ranks leave with the same one, and rank 0 shows the reason."""

MAX_ERROR_LINES = 40
_STOPPED = (STOPPED_EARLY, -signal.SIGINT, -signal.SIGTERM, -signal.SIGUSR1)
"""Exit statuses of ranks that were told to stop: their own, or that of the signal before they could handle it."""


@dataclass(frozen=True)
class RankExit:
    """The end of one rank. `status`: its exit status, or -N if signal N ended it."""

    rank: int
    status: int
    host: str

    @property
    def exit_status(self) -> int:
        """The rank's exit status; that of a failure if a signal ended it."""
        return self.status if self.status >= 0 else FAILED

    def describe(self) -> str:
        """Return how the rank ended, in words."""
        if self.status >= 0:
            return f"ended with status {self.status}"
        return f"was killed by {signal_name(-self.status)}"


@dataclass(frozen=True)
class Outcome:
    """The exit status, the failure that decided it (None if no rank did), and a reason if no rank gave one."""

    status: int
    first_failure: RankExit | None = None
    reason: str = ""

    @property
    def told(self) -> str:
        """The reason, or how the first rank failed, in words; "" for a good end."""
        first = self.first_failure
        return self.reason or (f"rank {first.rank} on {first.host} {first.describe()}" if first else "")


def signal_name(number: int) -> str:
    """Return a signal's name, such as SIGKILL for 9."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def outcome_of(
    rank_exits: Sequence[RankExit], written: int | None, stop: signal.Signals | None, start_failure: str = ""
) -> Outcome:
    """Decide the outcome of a start. `rank_exits`: in the order in which they were reported.

    `written`: the exit status in status.json (see `exit_of_this_start`). `stop`: the signal that `ftlaunch` received.
    `start_failure`: why ranks could not be started, or why the connection to them was lost.
    """
    failures = [each for each in rank_exits if each.status]
    if written == DONE or (rank_exits and not failures and not start_failure):
        return Outcome(DONE)
    by_themselves = bool(failures) and all(each.status == STOPPED_EARLY for each in failures)
    too_early = written is None and not start_failure and all(each.status in _STOPPED for each in failures)
    if stop is not None and too_early and not by_themselves:
        return Outcome(STOPPED_EARLY, reason=f"stopped by {stop.name} before training began")
    if not failures:
        return Outcome(FAILED, reason=start_failure)
    first = _first_failure(failures)
    return Outcome(_exit_status(first, written, stop), first)


def _first_failure(failures: Sequence[RankExit]) -> RankExit:
    """Return the failure that came first; rank 0's if all ranks agreed, since it has shown the reason."""
    first = failures[0]
    same = (each for each in failures if each.rank == 0 and each.status == first.status)
    return next(same, first) if first.status in SHARED_STATUSES else first


def _exit_status(first: RankExit, written: int | None, stop: signal.Signals | None) -> int:
    """Return the status in status.json, except for two that later failures write.

    These are 75, if ranks were interrupted only because another had failed, and the plain 1 of ranks that end because
    another one refused or hung.
    """
    own = first.exit_status
    if written is None or (written == STOPPED_EARLY != own and stop is None):
        return own
    return own if written == FAILED and own in SHARED_STATUSES else written


def last_error(log: str) -> str:
    """Return the error at the end of a log: the last traceback and what follows it, or the last `error:` line."""
    lines = log.rstrip().split("\n")
    begin = _last(lines, "Traceback (most recent call last)")
    if begin is None:
        begin = _last(lines, "error: ")
    return "\n".join(lines[begin:][-MAX_ERROR_LINES:]) if begin is not None else ""


def _last(lines: Sequence[str], beginning: str) -> int | None:
    return next((number for number in reversed(range(len(lines))) if lines[number].startswith(beginning)), None)


def closing_lines(outcome: Outcome, logs: Path, start_failure: str = "") -> list[str]:
    """Return the last lines to show: the error of the rank that failed first, as it wrote it, and the path of its log.

    An error that is the same as rank 0's is left out: that one is on the terminal already.
    """
    first = outcome.first_failure
    if outcome.status == DONE or (first is not None and first.status == STOPPED_EARLY):
        return []
    if outcome.status == STOPPED_EARLY:
        return [f"error: {outcome.reason}: start the same command again."]
    if first is None:
        return [*_launcher_errors(logs), f"error: {outcome.reason}; see the logs in {logs}"]
    log = logs / f"rank-{first.rank}.log"
    error = last_error(_newest_part(log)).splitlines()
    shown = last_error(_newest_part(logs / "rank-0.log")).splitlines()
    error = error if error[-1:] != shown[-1:] else []
    lost = [f"error: {start_failure}"] if start_failure else []
    return [*lost, *error, f"error: {outcome.told}{_likely_cause(first.status)}; its log: {log}"]


def _likely_cause(status: int) -> str:
    """Return what usually is behind a signal that a rank cannot handle."""
    return {
        -signal.SIGKILL: "; if nobody killed it, the machine was out of memory",
        -signal.SIGBUS: "; a file that it had mapped became shorter, such as a store, or /dev/shm is full",
    }.get(status, "")


def _launcher_errors(logs: Path) -> list[str]:
    """Return the errors of each node's torchrun or deepspeed launcher, for starts in which no rank ran."""
    return [line for log in sorted(logs.glob("node-*.log")) for line in last_error(_newest_part(log)).splitlines()]


def _newest_part(log: Path) -> str:
    return newest_part(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else ""
