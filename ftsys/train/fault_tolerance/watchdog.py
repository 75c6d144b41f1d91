"""Ends all ranks when one of them died, failed or hangs, and reports which one: no collective reports that by itself.

Each rank sends its phase and step with its heartbeats. Rank 0 decides when to end the run; if rank 0 is lost, each
other rank decides for itself. The heartbeat thread ends the process, because the main thread may wait inside a
collective that never returns.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ftsys.console.printer import complain, show_cursor
from ftsys.distributed import broadcast_json
from ftsys.errors import DONE, FAILED, HUNG, FtsysError, StorageError
from ftsys.files.integrity import bytes_hashed
from ftsys.run_folder.status_writer import StatusWriter
from ftsys.train.fault_tolerance.heartbeat import HEARTBEAT_SECONDS, Heartbeat, Message
from ftsys.train.fault_tolerance.signals import Interruption

GRACE_HEARTBEATS = 4
"""Heartbeats in which ranks may exit by themselves, with their own errors, after one of them has failed."""

ANSWER_HEARTBEATS = 3
"""Heartbeats that rank 0 waits for the stacks of the other ranks when the run hangs."""

SUSPECTS_SHOWN = 4
"""Ranks whose stacks are in the error of a hang, at most."""

RESUME = "Start the same command again to resume from the newest checkpoint."

_BACKWARD = "torch/autograd/graph.py"
_COLLECTIVES = ("torch/distributed/", "deepspeed/comm/", "torch/_C/_distributed")


class Watchdog:
    """Watches the ranks of one attempt, from `begin` until the block of `watching` ends.

    `leave(exit_status)` ends the process.
    """

    def __init__(
        self,
        status_writer: StatusWriter,
        interruption: Interruption,
        hung_after: float,
        leave: Callable[[int], Any] = os._exit,
        advice: str = RESUME,
        most_silent: int | None = None,
    ) -> None:
        """Set up, without starting the thread.

        The run hangs if no rank makes progress for `hung_after` seconds; 0 switches this check off. `advice` ends the
        message about a lost rank; `most_silent` is as for `Heartbeat`.
        """
        self._advice = advice
        self.status_writer, self.interruption, self._leave = status_writer, interruption, leave
        self._hung_heartbeats = hung_after / HEARTBEAT_SECONDS
        self.rank, self.ranks = 0, 1
        self._doing: Message = {"phase": status_writer.phase, "step": 0, "position": 0, "activity": 0}
        self._seen: dict[int, Message] = {}
        self._left: dict[int, Message] = {}
        self._stacks: dict[int, str] = {}
        self._last_activity, self._idle_heartbeats = -1, 0
        self._countdown: tuple[int, Callable[[], None]] | None = None
        self._heartbeat = Heartbeat(self._on_message, self._on_lost, self._on_heartbeat, self._state, most_silent)
        self._begun = self._compiling = False

    def begin(self, rank: int, ranks: int) -> None:
        """Start to watch; the process group must be initialized. Collective. Raises LaunchError."""
        self.rank, self.ranks = rank, ranks
        self.status_writer.attempt = broadcast_json(self.status_writer.attempt)
        self._heartbeat.connect(rank, ranks)
        self._begun = self.interruption.ranks_met = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Send the other ranks how this rank left the block, so that none of them waits for it."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, RuntimeError) and self._begun and self.ranks > 1:
                # Most likely a dead rank broke a collective; then the thread ends this process with the reason.
                # It also ends it, with the error of a rank that has failed, one heartbeat after the grace.
                time.sleep((GRACE_HEARTBEATS + 2) * HEARTBEAT_SECONDS)
            status = error.exit_status if isinstance(error, FtsysError) else FAILED
            self._send_exit(status, str(error) if isinstance(error, FtsysError) else _in_one_line(error))
            raise
        self._send_exit(DONE, "")

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Do not take the ranks for hung in the block: they may compile code, which is no progress that shows."""
        self._compiling = True
        try:
            yield
        finally:
            self._compiling = False

    def mark(self, phase: str, step: int, together: bool = True) -> None:
        """Record progress of this rank. `together`: all ranks pass this point, in the same order."""
        doing = self._doing
        self._doing = {
            "phase": phase,
            "step": step,
            "position": doing["position"] + together,
            "activity": doing["activity"] + 1,
        }

    def _send_exit(self, exit_status: int, reason: str) -> None:
        if self._begun:
            self._heartbeat.send({"kind": "left", "rank": self.rank, "exit": exit_status, "reason": reason})
            self._heartbeat.close()

    # The methods below run in the heartbeat thread.

    def _state(self) -> Message:
        who = {"host": os.uname().nodename, "pid": os.getpid()}
        activity = self._doing["activity"] + bytes_hashed()
        return {**self._doing, "activity": activity, "stop": self.interruption.wanted, **who}

    def _on_message(self, number: int, message: Message) -> None:
        answer = {
            "heartbeat": self._on_rank_heartbeat,
            "left": self._on_left,
            "stop": self._on_stop,
            "end": lambda number, message: self._end(message["exit"], message["reason"]),
            "stack request": lambda number, message: self._heartbeat.send({"kind": "stack", "text": _main_stack()}),
            "stack": lambda number, message: self._stacks.update({number: message["text"]}),
        }
        answer[message["kind"]](number, message)

    def _on_rank_heartbeat(self, number: int, message: Message) -> None:
        self._seen[number] = message
        if message["stop"]:
            self._on_stop(number, message)

    def _on_stop(self, number: int, message: Message) -> None:
        """Request a stop on this rank too, so that an evaluation ends early on all ranks."""
        if not self.interruption.wanted and self.rank == 0:
            self._heartbeat.send({"kind": "stop"})
        self.interruption.wanted = True

    def _on_left(self, number: int, message: Message) -> None:
        self._left[message["rank"]] = message
        if self.rank == 0:
            self._heartbeat.send(message)
        if message["exit"] != DONE and self._countdown is None:
            reason = f"rank {message['rank']} left with exit status {message['exit']}: {message['reason']}"
            self._countdown = (GRACE_HEARTBEATS, lambda: self._end_run(message["exit"], reason))

    def _on_lost(self, number: int, reason: str) -> None:
        if number in self._left:
            return
        last = self._seen.get(number, {})
        where = f"host {last['host']}, pid {last['pid']}" if last else "before its first heartbeat"
        doing = f" in phase {last['phase']!r}" if last else ""
        doing += f", step {last['step']}" if last.get("step") else ""
        self._end_run(
            FAILED,
            f"rank {number} died ({where}){doing}: {reason}. If it was not killed, its own output shows why. "
            f"{self._advice}",
            lost=number,
        )

    def _on_heartbeat(self) -> None:
        if self._countdown is not None:
            heartbeats, act = self._countdown
            self._countdown = (heartbeats - 1, act) if heartbeats else None
            if not heartbeats:
                act()
        elif self.rank == 0 and self._hung_heartbeats and self._is_idle():
            self._heartbeat.send({"kind": "stack request"})
            self._countdown = (ANSWER_HEARTBEATS, self._end_hung_run)

    def _is_idle(self) -> bool:
        activity = self._state()["activity"] + sum(message["activity"] for message in self._seen.values())
        idle = activity == self._last_activity and not self._compiling
        self._idle_heartbeats = self._idle_heartbeats + 1 if idle else 0
        self._last_activity = activity
        return self._idle_heartbeats >= self._hung_heartbeats

    def _end_hung_run(self) -> None:
        self._seen[self.rank], self._stacks[self.rank] = self._state(), _main_stack()
        shown = []
        for number in suspects(self._seen, self._stacks)[:SUSPECTS_SHOWN]:
            doing, stack = self._seen[number], self._stacks.get(number, "its stack did not arrive\n")
            shown.append(f"rank {number} hangs in phase {doing['phase']!r}, step {doing['step']}:\n{stack}")
        seconds = self._idle_heartbeats * HEARTBEAT_SECONDS
        self._end_run(HUNG, f"no rank made progress for {seconds:g} s (train.watchdog_seconds). " + "".join(shown))

    def _end_run(self, exit_status: int, reason: str, lost: int | None = None) -> None:
        self._heartbeat.send({"kind": "end", "exit": exit_status, "reason": reason})
        reports = self.rank == (1 if lost == 0 else 0)
        self._end(exit_status, reason, reports)

    def _end(self, exit_status: int, reason: str, reports: bool = False) -> None:
        self.interruption.deferred = True  # the launcher's signal that follows this end must not count as an early stop
        if reports:
            show_cursor()
            complain(reason)
            try:
                self.status_writer.write_for_rank_0(exit_status, reason)
            except FtsysError as error:
                complain(error)
        with contextlib.suppress(OSError, ValueError, StorageError):  # closed, or on a full disk
            sys.stdout.flush()
        self._leave(exit_status)


def suspects(doing: dict[int, Message], stacks: dict[int, str]) -> list[int]:
    """Return the ranks that the others wait for: those with the least progress that wait for no rank themselves.

    A rank in a backward pass may wait inside it, for gradients of the others. If all of those with the least progress
    are in one, return those that are not inside a collective; if all are inside one, all of them.
    """
    least = min(message["position"] for message in doing.values())
    behind = sorted(number for number, message in doing.items() if message["position"] == least)
    for places in ((*_COLLECTIVES, _BACKWARD), _COLLECTIVES):
        if own := [number for number in behind if not any(place in stacks.get(number, "") for place in places)]:
            return own
    return behind


def _main_stack() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def _in_one_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()
