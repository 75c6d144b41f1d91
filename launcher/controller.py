"""One start of a run, from the first word of its agents to the last: prepare, start, watch, stop, end."""

import queue
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ftsys.errors import LaunchError
from launcher.backends.agents import Agents, Said
from launcher.command_lines import Start
from launcher.exit_report import Ended
from launcher.protocol import Message
from launcher.timeouts import (
    CONTROLLER_CLOSE_SECONDS,
    CONTROLLER_GIVE_UP_SECONDS,
    CONTROLLER_KILL_SECONDS,
    CONTROLLER_POLL_SECONDS,
    HEARTBEAT_SECONDS,
    PREFLIGHT_SECONDS,
    SECOND_INTERRUPT_SECONDS,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Conductor:
    """The agents of one start, and what has become of their ranks."""

    def __init__(self, agents: Sequence[Agents], inbox: "queue.Queue[Said]") -> None:
        self._agents, self._inbox = agents, inbox
        self._nodes = {node for each in agents for node in each.nodes}
        self._gone: set[int] = set()
        self.ended: list[Ended] = []
        self.stop: signal.Signals | None = None
        """The first signal that we were told to stop by."""
        self._received: list[signal.Signals] = []
        self._stopped_at = 0.0
        self.unstarted = ""
        """Why ranks could not be started or were lost, where that happened."""
        self._give_up_at = float("inf")
        self._beat_at = time.monotonic()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Open the agents, and hand signals on to them; whatever happens, none stays behind."""
        former = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        opened: list[Agents] = []
        try:
            for each in self._agents:
                each.open()
                opened.append(each)
            yield
        finally:
            for each in opened:
                each.hang_up()
            deadline = time.monotonic() + CONTROLLER_CLOSE_SECONDS
            for each in opened:
                each.end(deadline)
            for number, handler in former.items():
                signal.signal(number, handler)
            if self.ended and sys.stderr.isatty():
                print("\x1b[?25h", end="", file=sys.stderr, flush=True)  # a progress bar that was killed hid the cursor

    def prepare(self, **order: object) -> dict[int, Message]:
        """Have every node look at itself; returns what each says, by its number.

        Raises LaunchError with the reason of every node that cannot be used. Nothing has been started then.
        """
        for each in self._agents:
            each.tell(do="prepare", node=each.nodes[0] if len(each.nodes) == 1 else None, **order)
        ready: dict[int, Message] = {}
        reasons: list[str] = []
        lost: set[int] = set()
        deadline = time.monotonic() + PREFLIGHT_SECONDS
        while len(ready) + len(lost) < len(self._nodes) and self.stop is None:
            said = self._next(max(0.0, min(CONTROLLER_POLL_SECONDS, deadline - time.monotonic())))
            if said is None and time.monotonic() < deadline:
                continue
            if said is None:
                silent = sorted({each.place for each in self._agents if set(each.nodes) - ready.keys() - lost})
                reasons.append(f"nothing was heard of {', '.join(silent)} for {PREFLIGHT_SECONDS:g} s.")
                break
            if said.word is None:
                lost |= set(said.by.nodes) - ready.keys()
                reasons.append(_why_not(said.by))
            elif said.word["kind"] == "refused":
                lost.add(said.word["node"])
                reasons.append(said.word["reason"])
            elif said.word["kind"] == "ready":
                ready[said.word["node"]] = said.word
        if reasons:
            raise LaunchError("\n".join(dict.fromkeys(reasons)))
        return ready

    def start(self, start: Start, peers: Sequence[str]) -> None:
        """Have every node start its ranks."""
        for each in self._agents:
            each.started = True
            each.tell(do="start", start=start.as_fields(), peers=list(peers))

    def wait(self) -> None:
        """Return when every node is done, or has been given up after a failure."""
        while self._nodes - self._gone and time.monotonic() < self._give_up_at:
            said = self._next(CONTROLLER_POLL_SECONDS)
            if said is None:
                continue
            if said.word is None:
                self._lost(said.by)
            elif said.word["kind"] == "ended":
                self._on_rank_end(said.word)
            elif said.word["kind"] == "gone":
                self._on_node_end(said.word)

    def _next(self, seconds: float) -> Said | None:
        while self._received:
            self._hand_on(self._received.pop(0))
        if time.monotonic() - self._beat_at > HEARTBEAT_SECONDS:
            self._beat_at = time.monotonic()
            self._tell(do="beat")
        try:
            return self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None

    def _on_rank_end(self, word: Message) -> None:
        self.ended.append(Ended(word["rank"], word["status"], word["host"]))
        if word["status"] not in (0, 75):
            self._fail()

    def _on_node_end(self, word: Message) -> None:
        self._gone.add(word["node"])
        if word["status"] != 0 and not word["ranks"] and self.stop is None:
            reason = f": {word['reason']}" if word["reason"] else ""
            self.unstarted = self.unstarted or f"no rank was started on {word['host']}{reason}"
            self._fail()

    def _lost(self, agents: Agents) -> None:
        """The process that leads to some agents has ended."""
        agents.ended = True
        missing = set(agents.nodes) - self._gone
        self._gone |= missing
        if missing:
            self.unstarted = self.unstarted or f"the connection to {agents.place} was lost: {_last_words(agents)}"
            self._fail()

    def _fail(self) -> None:
        """Something went wrong: nodes that do not know of it yet have their ranks leave too."""
        if self._give_up_at == float("inf"):
            self._give_up_at = time.monotonic() + CONTROLLER_GIVE_UP_SECONDS
            self._tell(do="leave", now=False)

    def _tell(self, **order: object) -> None:
        for each in self._agents:
            if not each.ended:
                each.tell(**order)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(signal.Signals(number))

    def _hand_on(self, received: signal.Signals) -> None:
        """The first signal goes to the ranks, once; a second Ctrl-C of its own ends them as they are."""
        now = time.monotonic()
        if self.stop is None:
            self.stop, self._stopped_at = received, now
            # A closed terminal's HUP is no signal that ranks know.
            self._tell(do="signal", name="SIGTERM" if received == signal.SIGHUP else received.name)
        elif received == signal.SIGINT and now - self._stopped_at > SECOND_INTERRUPT_SECONDS:
            print("ftlaunch: told a second time: the ranks are ended as they are", file=sys.stderr, flush=True)
            self._tell(do="leave", now=True)
            self._give_up_at = min(self._give_up_at, now + CONTROLLER_KILL_SECONDS)


def _why_not(agents: Agents) -> str:
    """Why an agent could not be had, in the words of ssh, the far shell or srun."""
    said, status = _last_words(agents), agents.process.returncode
    if agents.command[0] == "ssh" and status == 255:
        do = f"`ssh {agents.place} true` must work without a password: correct the name, or ssh's keys and settings."
        return f"host {agents.place!r} is not reached over ssh: {said}. {do}"
    return f"{agents.place!r} could not be used (exit status {status}): {said}."


def _last_words(agents: Agents) -> str:
    lines = agents.errors.decode(errors="replace").strip().splitlines()
    return "; ".join(line.strip().rstrip(".") for line in lines[-3:]) or "it said nothing"
