"""Ends every rank when one of them died, failed or hangs, and says which: no collective ever reports that by itself.

Each rank tells what it does; rank 0 judges, or whoever is left when rank 0 is gone. A thread ends the process, because
the main thread may wait inside a collective that never returns.
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

from ftsys.distributed import broadcast_object
from ftsys.errors import DONE, FAILED, HUNG, FtsysError
from ftsys.run_folder.status_writer import StatusWriter
from ftsys.train.fault_tolerance.heartbeat import BEAT_SECONDS, Peers, Word
from ftsys.train.fault_tolerance.signals import Interruption

GRACE_BEATS = 4
"""Beats in which ranks may leave by themselves, with words of their own, once one of them has left in trouble."""

ANSWER_BEATS = 3
SUSPECTS_TOLD = 4
_COLLECTIVES = ("torch/distributed/", "deepspeed/comm/", "torch/_C/_distributed")


class Watchdog:
    """Watches over the ranks of one life from `begin` until `watching` ends. `leave` ends the process with a status."""

    def __init__(
        self,
        journal: StatusWriter,
        interruption: Interruption,
        hung_after: float,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        """`hung_after`: seconds without any progress on any rank after which the run counts as hung; 0 for never."""
        self.journal, self.interruption, self._leave = journal, interruption, leave
        self._hung_beats = hung_after / BEAT_SECONDS
        self.rank, self.ranks = 0, 1
        self._doing: Word = {"phase": journal.phase, "step": 0, "position": 0, "activity": 0}
        self._seen: dict[int, Word] = {}
        self._left: dict[int, Word] = {}
        self._stacks: dict[int, str] = {}
        self._last_activity, self._idle_beats = -1, 0
        self._countdown: tuple[int, Callable[[], None]] | None = None
        self._peers = Peers(self._on_word, self._on_lost, self._on_beat, self._state)
        self._begun = False

    def begin(self, rank: int, ranks: int) -> None:
        """Start to watch, once the process group is there. Collective. Raises LaunchError."""
        self.rank, self.ranks = rank, ranks
        self.journal.attempt = broadcast_object(self.journal.attempt)
        self._peers.connect(rank, ranks)
        self._begun = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Tell the others how this rank left the block, so that none of them waits for it."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, RuntimeError) and self._begun and self.ranks > 1:
                time.sleep(GRACE_BEATS * BEAT_SECONDS)  # most likely a collective that a dead rank broke: judged apart
            status = error.exit_status if isinstance(error, FtsysError) else FAILED
            self._say_goodbye(status, str(error) if isinstance(error, FtsysError) else _in_one_line(error))
            raise
        self._say_goodbye(DONE, "")

    def mark(self, phase: str, step: int, together: bool = True) -> None:
        """This rank has come further. `together`: at a point that all ranks pass, in the same order."""
        doing = self._doing
        self._doing = {
            "phase": phase,
            "step": step,
            "position": doing["position"] + together,
            "activity": doing["activity"] + 1,
        }

    def _say_goodbye(self, exit_status: int, reason: str) -> None:
        if self._begun:
            self._peers.tell({"kind": "left", "rank": self.rank, "exit": exit_status, "reason": reason})
            self._peers.close()

    # In the star's thread

    def _state(self) -> Word:
        return {**self._doing, "stop": self.interruption.wanted, "host": os.uname().nodename, "pid": os.getpid()}

    def _on_word(self, number: int, word: Word) -> None:
        answer = {
            "beat": self._on_peer_beat,
            "left": self._on_left,
            "stop": self._on_stop,
            "verdict": lambda number, word: self._end(word["exit"], word["reason"]),
            "stack?": lambda number, word: self._peers.tell({"kind": "stack", "text": _main_stack()}),
            "stack": lambda number, word: self._stacks.update({number: word["text"]}),
        }
        answer[word["kind"]](number, word)

    def _on_peer_beat(self, number: int, word: Word) -> None:
        self._seen[number] = word
        if word["stop"]:
            self._on_stop(number, word)

    def _on_stop(self, number: int, word: Word) -> None:
        """One rank was told to stop: an evaluation need not go on on the others."""
        if not self.interruption.wanted and self.rank == 0:
            self._peers.tell({"kind": "stop"})
        self.interruption.wanted = True

    def _on_left(self, number: int, word: Word) -> None:
        self._left[word["rank"]] = word
        if self.rank == 0:
            self._peers.tell(word)
        if word["exit"] != DONE and self._countdown is None:
            reason = f"rank {word['rank']} left with exit status {word['exit']}: {word['reason']}"
            self._countdown = (GRACE_BEATS, lambda: self._judge(word["exit"], reason))

    def _on_lost(self, number: int, why: str) -> None:
        if number in self._left:
            return
        last = self._seen.get(number, {})
        where = f"host {last['host']}, pid {last['pid']}" if last else "before it said a word"
        doing = f" in phase {last['phase']!r}, step {last['step']}" if last else ""
        self._judge(
            FAILED,
            f"rank {number} died ({where}){doing}: {why}. If it was not killed, its own output says why. "
            "Start the same command again to go on from the newest checkpoint.",
            lost=number,
        )

    def _on_beat(self) -> None:
        if self._countdown is not None:
            beats, act = self._countdown
            self._countdown = (beats - 1, act) if beats else None
            if not beats:
                act()
        elif self.rank == 0 and self._hung_beats and self._is_idle():
            self._peers.tell({"kind": "stack?"})
            self._countdown = (ANSWER_BEATS, self._judge_hung)

    def _is_idle(self) -> bool:
        activity = self._doing["activity"] + sum(word["activity"] for word in self._seen.values())
        self._idle_beats = self._idle_beats + 1 if activity == self._last_activity else 0
        self._last_activity = activity
        return self._idle_beats >= self._hung_beats

    def _judge_hung(self) -> None:
        self._seen[self.rank], self._stacks[self.rank] = self._state(), _main_stack()
        told = []
        for number in suspects(self._seen, self._stacks)[:SUSPECTS_TOLD]:
            doing, stack = self._seen[number], self._stacks.get(number, "its stack did not come\n")
            told.append(f"rank {number} hangs in phase {doing['phase']!r}, step {doing['step']}:\n{stack}")
        seconds = self._idle_beats * BEAT_SECONDS
        self._judge(HUNG, f"no rank made progress for {seconds:g} s (train.watchdog_seconds). " + "".join(told))

    def _judge(self, exit_status: int, reason: str, lost: int | None = None) -> None:
        self._peers.tell({"kind": "verdict", "exit": exit_status, "reason": reason})
        speaker = self.rank == (1 if lost == 0 else 0)
        self._end(exit_status, reason, speaker)

    def _end(self, exit_status: int, reason: str, speaker: bool = False) -> None:
        self.interruption.deferred = True  # the launcher's own signal for this very death is none to stop early
        if speaker:
            if sys.stderr.isatty():
                print("\x1b[?25h", file=sys.stderr)  # a progress bar hides the cursor
            print(f"error: {reason}", file=sys.stderr, flush=True)
            try:
                self.journal.write_for_rank_0(exit_status, reason)
            except FtsysError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError, ValueError):  # a closed terminal or pipe
            sys.stdout.flush()
        self._leave(exit_status)


def suspects(doing: dict[int, Word], stacks: dict[int, str]) -> list[int]:
    """The ranks for which the others wait: those least far, and of them those that are not inside a collective."""
    least = min(word["position"] for word in doing.values())
    behind = sorted(number for number, word in doing.items() if word["position"] == least)
    own = [number for number in behind if not any(part in stacks.get(number, "") for part in _COLLECTIVES)]
    return own or behind


def _main_stack() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def _in_one_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()
