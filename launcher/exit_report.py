"""How a start ended: which rank failed first, what is said of it, which exit status `ftlaunch` has.

The ranks' own word in status.json counts, if it is of this start; launchers hide exit statuses, and a rank that was
killed writes none. What nobody else can know comes from the processes around the ranks: which ended first, and how.
"""

import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ftsys.errors import BAD_INPUT, DONE, FAILED, HUNG, NOT_OURS, STOPPED_EARLY

AGREED = (BAD_INPUT, STOPPED_EARLY, HUNG, NOT_OURS)
"""Statuses with a meaning of their own, which usually all ranks leave with; rank 0 has said why."""

TOLD_LINES = 40
_STOPPED = (STOPPED_EARLY, -signal.SIGINT, -signal.SIGTERM, -signal.SIGUSR1)
"""How ranks end that were told to stop: by themselves, or of the signal while they could not handle it yet."""


@dataclass(frozen=True)
class Ended:
    """One rank's end, in the order in which `ftlaunch` heard of them. `status`: -N for signal N."""

    rank: int
    status: int
    host: str

    @property
    def exit_status(self) -> int:
        """The status that stands for it: that of a failure where a signal ended the rank."""
        return self.status if self.status >= 0 else FAILED

    def in_words(self) -> str:
        """How it ended."""
        if self.status >= 0:
            return f"ended with status {self.status}"
        return f"was killed by {signal_name(-self.status)}"


@dataclass(frozen=True)
class Outcome:
    """The exit status, the rank that decided it (None where no rank did), and a reason where no rank gave one."""

    status: int
    first: Ended | None = None
    reason: str = ""


def signal_name(number: int) -> str:
    """SIGKILL for 9."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def judge(ended: Sequence[Ended], written: int | None, stop: signal.Signals | None, unstarted: str = "") -> Outcome:
    """The outcome of a start. `written`: status.json's exit status (see `exit_of_this_start`). `stop`: the signal that
    `ftlaunch` was told to stop by. `unstarted`: why ranks could not be started or were lost, where that happened.
    """
    failures = [each for each in ended if each.status]
    if written == DONE or (ended and not failures and not unstarted):
        return Outcome(DONE)
    by_themselves = bool(failures) and all(each.status == STOPPED_EARLY for each in failures)
    too_early = written is None and not unstarted and all(each.status in _STOPPED for each in failures)
    if stop is not None and too_early and not by_themselves:
        return Outcome(STOPPED_EARLY, reason=f"stopped by {stop.name} before training began")
    if not failures:
        return Outcome(FAILED, reason=unstarted)
    first = _first(failures)
    return Outcome(_status(first, written, stop), first)


def _first(failures: Sequence[Ended]) -> Ended:
    """The failure that came first; rank 0's, where all agreed and it has said why."""
    first = failures[0]
    same = (each for each in failures if each.rank == 0 and each.status == first.status)
    return next(same, first) if first.status in AGREED else first


def _status(first: Ended, written: int | None, stop: signal.Signals | None) -> int:
    """status.json's word, but for two that a later failure leaves: 75 of ranks that were interrupted because another
    had failed, and the plain 1 of ranks that a refusal or a hang of another took along.
    """
    own = first.exit_status
    if written is None or (written == STOPPED_EARLY != own and stop is None):
        return own
    return own if written == FAILED and own in AGREED else written


def own_error(log: str) -> str:
    """A rank's own error, from its log's text: the last traceback and what follows, or its last `error:` lines."""
    lines = log.rstrip().split("\n")
    begin = _last(lines, "Traceback (most recent call last)")
    if begin is None:
        begin = _last(lines, "error: ")
    return "\n".join(lines[begin:][-TOLD_LINES:]) if begin is not None else ""


def _last(lines: Sequence[str], beginning: str) -> int | None:
    return next((number for number in reversed(range(len(lines))) if lines[number].startswith(beginning)), None)


def since_start(log: str) -> str:
    """What the newest start wrote into a log: all after its last title line."""
    return log.rpartition("\n---- ")[2].partition("\n")[2] if "\n---- " in log else log.partition("\n")[2]


def closing_lines(outcome: Outcome, logs: Path, unstarted: str = "") -> list[str]:
    """What is said last: the error of the rank that failed first, in its own words, and where its log is.

    Rank 0's words are on the terminal already; another rank's that end alike would only repeat them.
    """
    if outcome.status == DONE or (outcome.first is not None and outcome.first.status == STOPPED_EARLY):
        return []
    if outcome.status == STOPPED_EARLY:
        return [f"error: {outcome.reason}: start the same command again."]
    if outcome.first is None:
        return [*_node_errors(logs), f"error: {outcome.reason}; see the logs in {logs}"]
    first, log = outcome.first, logs / f"rank-{outcome.first.rank}.log"
    told = own_error(_newest(log)).splitlines()
    shown = own_error(_newest(logs / "rank-0.log")).splitlines()
    told = told if told[-1:] != shown[-1:] else []
    memory = "; if nobody killed it, the machine was out of memory" if first.status == -signal.SIGKILL else ""
    lost = [f"error: {unstarted}"] if unstarted else []
    return [*lost, *told, f"error: rank {first.rank} on {first.host} {first.in_words()}{memory}; its log: {log}"]


def _node_errors(logs: Path) -> list[str]:
    """What the launchers of the nodes said, where no rank came to say anything."""
    return [line for log in sorted(logs.glob("node-*.log")) for line in own_error(_newest(log)).splitlines()]


def _newest(log: Path) -> str:
    return since_start(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else ""
