"""Controls one start of a run: opens the agents, checks the machines, starts the ranks, watches and ends them."""

import queue
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ftsys.console.printer import say, show_cursor
from ftsys.errors import DONE, STOPPED_EARLY, LaunchError
from launcher.backends.agents import AgentConnection, Event
from launcher.command_lines import LaunchSpec
from launcher.exit_report import RankExit
from launcher.protocol import Message
from launcher.timeouts import (
    CONTROLLER_CLOSE_SECONDS,
    CONTROLLER_GIVE_UP_SECONDS,
    CONTROLLER_KILL_SECONDS,
    CONTROLLER_POLL_SECONDS,
    HEARTBEAT_SECONDS,
    LAST_RANKS_SECONDS,
    PREFLIGHT_SECONDS,
    SECOND_INTERRUPT_SECONDS,
    WORDS_SECONDS,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
SSH_FAILED = 255
"""ssh's own exit status; any other one is that of the command on the remote machine."""


class Controller:
    """Holds the connections to all agents of one start, and how its ranks ended."""

    def __init__(self, connections: Sequence[AgentConnection], events: "queue.Queue[Event]") -> None:
        self._connections, self._events = connections, events
        self._nodes = {node for each in connections for node in each.nodes}
        self._finished: set[int] = set()
        self.rank_exits: list[RankExit] = []
        self.stop_signal: signal.Signals | None = None
        """The first signal that `ftlaunch` received."""
        self._received: list[signal.Signals] = []
        self._stopped_at = 0.0
        self.start_failure = ""
        """The reason why ranks could not be started, or why the connection to them was lost; empty otherwise."""
        self._said: set[str] = set()
        self._give_up_at = self._last_ranks_at = float("inf")
        self._heartbeat_at = time.monotonic()

    @contextmanager
    def agents_open(self) -> Iterator[None]:
        """Open the agents and forward signals to them; no process of theirs is left at the end, whatever happens."""
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        handled = [number for number in SIGNALS if not (nohup and number is signal.SIGHUP)]
        former = {number: signal.signal(number, self._on_signal) for number in handled}
        opened: list[AgentConnection] = []
        try:
            for each in self._connections:
                each.open()
                opened.append(each)
            yield
        finally:
            _close(opened)
            for number, handler in former.items():
                signal.signal(number, handler)
            if self.rank_exits:
                show_cursor()

    def preflight(self, **request: object) -> dict[int, Message]:
        """Have every agent check its machine; returns their `ready` reports by node number.

        Raises LaunchError with the reason of every machine that cannot be used. Nothing has been started then.
        """
        for each in self._connections:
            each.send("preflight", node=each.nodes[0] if len(each.nodes) == 1 else None, **request)
        ready: dict[int, Message] = {}
        refused: dict[int, str] = {}
        deadline = time.monotonic() + PREFLIGHT_SECONDS
        while self._nodes - ready.keys() - refused.keys() and self.stop_signal is None:
            self._say_why_it_takes_long(deadline - PREFLIGHT_SECONDS)
            event = self._next_event(max(0.0, min(CONTROLLER_POLL_SECONDS, deadline - time.monotonic())))
            if event is None and time.monotonic() >= deadline:
                refused |= self._unanswered(ready.keys() | refused.keys())
            elif event is not None and event.report is not None and event.report["kind"] == "ready":
                ready[event.report["node"]] = event.report
            elif event is not None:
                for node, reason in _refusals(event).items():
                    refused.setdefault(node, reason)
        if refused:
            raise LaunchError("\n".join(dict.fromkeys(refused.values())))
        return ready

    def _say_why_it_takes_long(self, since: float) -> None:
        """Pass on the words of srun or ssh, once each, where the agents do not answer soon: srun waits in silence."""
        if time.monotonic() - since < WORDS_SECONDS:
            return
        for each in self._connections:
            words = _last_errors(each) if each.errors else ""
            if words and words not in self._said:
                self._said.add(words)
                say(f"ftlaunch: waiting for {each.place}: {words}")

    def _unanswered(self, answered: set[int]) -> dict[int, str]:
        silent = sorted({each.place for each in self._connections if set(each.nodes) - answered})
        words = "; ".join(_last_errors(each) for each in self._connections if each.place in silent and each.errors)
        said = f" It says: {words}." if words else ""
        reason = f"no answer from {', '.join(silent)} within {PREFLIGHT_SECONDS:g} s.{said}"
        return dict.fromkeys(sorted(self._nodes - answered), reason)

    def start(self, launch: LaunchSpec, hosts: Sequence[str]) -> None:
        """Have every agent start the ranks of its node."""
        for each in self._connections:
            each.started = True
            each.send("start", launch=launch.as_fields(), hosts=list(hosts))

    def wait(self) -> None:
        """Return when the agent of every node has ended, or the rest has been given up after a failure."""
        while self._nodes - self._finished and time.monotonic() < self._give_up_at:
            self._end_last_ranks()
            event = self._next_event(CONTROLLER_POLL_SECONDS)
            if event is None:
                continue
            if event.report is None:
                self._on_connection_end(event.sender)
            elif event.report["kind"] == "rank_exit":
                self._on_rank_exit(event.report)
            elif event.report["kind"] == "agent_exit":
                self._on_agent_exit(event.report)

    def _next_event(self, seconds: float) -> Event | None:
        """Forward signals, send a heartbeat if one is due, and wait so long for the next event."""
        while self._received:
            self._forward_signal(self._received.pop(0))
        if time.monotonic() - self._heartbeat_at > HEARTBEAT_SECONDS:
            self._heartbeat_at = time.monotonic()
            self._send_all("heartbeat")
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def _on_rank_exit(self, report: Message) -> None:
        self.rank_exits.append(RankExit(report["rank"], report["status"], report["host"]))
        if report["status"] == DONE:
            self._last_ranks_at = min(self._last_ranks_at, time.monotonic() + LAST_RANKS_SECONDS)
        elif report["status"] != STOPPED_EARLY:
            self._on_failure()

    def _end_last_ranks(self) -> None:
        """Have ranks leave that are still there long after another one was done: nothing else would end them."""
        if time.monotonic() >= self._last_ranks_at:
            self._last_ranks_at = float("inf")
            done = ", ".join(str(each.rank) for each in self.rank_exits)
            say(f"ftlaunch: only rank {done} ended, the first {LAST_RANKS_SECONDS:g} s ago; ending the other ranks")
            self._on_failure()

    def _on_agent_exit(self, report: Message) -> None:
        self._finished.add(report["node"])
        if report["status"] != 0 and not report["ranks"] and self.stop_signal is None:
            reason = f": {report['reason']}" if report["reason"] else ""
            self.start_failure = self.start_failure or f"no rank was started on {report['host']}{reason}"
            self._on_failure()

    def _on_connection_end(self, connection: AgentConnection) -> None:
        """Count agents as lost if the process that leads to them ended before they reported their own end."""
        connection.ended = True
        missing = set(connection.nodes) - self._finished
        self._finished |= missing
        if missing:
            lost = f"the connection to {connection.place} was lost: {_last_errors(connection)}"
            self.start_failure = self.start_failure or lost
            self._on_failure()

    def _on_failure(self) -> None:
        """After the first failure, have the ranks of all other nodes leave too."""
        if self._give_up_at == float("inf"):
            self._give_up_at = time.monotonic() + CONTROLLER_GIVE_UP_SECONDS
            self._send_all("leave", now=False)

    def _send_all(self, kind: str, **fields: object) -> None:
        for each in self._connections:
            if not each.ended:
                each.send(kind, **fields)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(signal.Signals(number))

    def _forward_signal(self, received: signal.Signals) -> None:
        """Forward the first signal to the ranks, once; a later Ctrl-C kills them."""
        now = time.monotonic()
        if self.stop_signal is None:
            self.stop_signal, self._stopped_at = received, now
            # Ranks do not handle HUP, the signal of a closed terminal.
            self._send_all("signal", name="SIGTERM" if received == signal.SIGHUP else received.name)
        elif received == signal.SIGINT and now - self._stopped_at > SECOND_INTERRUPT_SECONDS:
            say("ftlaunch: second Ctrl-C: killing the ranks")
            self._send_all("leave", now=True)
            self._give_up_at = min(self._give_up_at, now + CONTROLLER_KILL_SECONDS)


def _close(connections: Sequence[AgentConnection]) -> None:
    """Close all inputs first, so that the agents end at the same time; then wait for each."""
    for each in connections:
        each.close_input()
    deadline = time.monotonic() + CONTROLLER_CLOSE_SECONDS
    for each in connections:
        each.end(deadline)


def _refusals(event: Event) -> dict[int, str]:
    """Map the nodes that cannot be used to the reason; empty for any other report."""
    if event.report is None:
        return dict.fromkeys(event.sender.nodes, _unusable(event.sender))
    return {event.report["node"]: event.report["reason"]} if event.report["kind"] == "refused" else {}


def _unusable(connection: AgentConnection) -> str:
    """Return why an agent could not be started, with the last lines of ssh, the remote shell or srun."""
    errors, status = _last_errors(connection), connection.process.returncode
    if connection.command[0] == "ssh" and status == SSH_FAILED:
        advice = (
            f"`ssh {connection.place} true` must work without a password: "
            "correct the host name, or ssh's keys and settings."
        )
        return f"host {connection.place!r} cannot be reached over ssh: {errors}. {advice}"
    return f"{connection.place!r} could not be used (exit status {status}): {errors}."


def _last_errors(connection: AgentConnection) -> str:
    lines = connection.errors.decode(errors="replace").strip().splitlines()
    return "; ".join(line.strip().rstrip(".") for line in lines[-3:]) or "it wrote no error message"
