"""Runs one rank for torchrun or the deepspeed launcher: `python -m launcher.agent.rank ARGUMENTS`.

This wrapper process starts `python -m ftsys ARGUMENTS`, bound to the rank's cores, and copies its output to a log and,
for rank 0, to the terminal. It reports the rank's exact end to the agent, since the launchers hide it, and ends all
processes that the rank started.
"""

import json
import math
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Self

from ftsys.console.child_python import python_command
from ftsys.console.parent_exit import signal_at_parent_exit, signalled_at_our_exit
from ftsys.console.printer import say
from ftsys.errors import FAILED
from launcher.agent.process_tree import kill_group
from launcher.agent.terminal import PlainText, copy_size, make_terminal
from launcher.log_files import on_own_line
from launcher.protocol import AGENT_SOCKET, MAX_MESSAGE_BYTES, write_all
from launcher.timeouts import ORPHAN_SECONDS, RANK_POLL_SECONDS

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclass
class OutputStream:
    """One of rank 0's outputs: read from `source`, written to `target` and, as plain text, to the log."""

    source: int
    target: int
    is_terminal: bool
    text: PlainText

    def copy(self, log: int) -> bool:
        """Copy what can be read now. Returns False at the end of the output."""
        try:
            piece = os.read(self.source, 1 << 16)
        except OSError:  # a terminal whose other side was closed
            piece = b""
        if not piece:
            return False
        if self.is_terminal:
            copy_size(self.target, self.source)
        with suppress(OSError):  # the reader is gone; the log still gets everything
            write_all(self.target, piece)
        write_log(log, self.text.feed(piece) if self.is_terminal else piece)
        return True

    def finish(self, log: int) -> None:
        """Copy the last output."""
        while select.select([self.source], [], [], 0)[0] and self.copy(log):
            pass
        write_log(log, self.text.end())


def main(arguments: list[str]) -> int:
    """Run the rank and return its exit status, or 128 + N for signal N."""
    signal_at_parent_exit(signal.SIGTERM, os.getppid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
        agent.connect("\0" + os.environ.pop(AGENT_SOCKET))
        agent_pid, user = _peer(agent)
        if user != os.getuid():  # any user may take the name of a socket whose agent has ended
            say(f"the agent's socket belongs to user {user}: this rank takes no orders from it, and ends")
            return FAILED
        if os.getppid() == agent_pid:  # it adopts orphans: torchrun ended before the first line
            return 128 + signal.SIGTERM
        rank, local_rank = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK"))
        send(agent, rank=rank, local_rank=local_rank, wrapper_pid=os.getpid())
        answer, terminals, _, _ = socket.recv_fds(agent, MAX_MESSAGE_BYTES, 2)
        settings = json.loads(answer)
        if settings["cpus"]:
            os.sched_setaffinity(0, settings["cpus"])
        with RankProcess(arguments, Path(settings["log"]), settings["title"], terminals) as process:
            send(agent, rank_pid=process.pid)
            status = process.wait(agent)
        send(agent, exit=status)
        if status:
            # torchrun must not know before the agent agrees: it would interrupt the others, which leave by themselves.
            with suppress(OSError):
                agent.recv(1)
    return status if status >= 0 else 128 - status


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Return the ids of the process that listens at the other end, and of its user."""
    process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(process), int(user)


def write_log(log: int, data: bytes) -> None:
    """Write to a log. On a full disk it has a gap; the rank goes on, and reports the disk where a run needs it."""
    with suppress(OSError):
        write_all(log, data)


def open_log(path: Path) -> int:
    """Open a log to append to it; returns /dev/null, and says so, if that cannot be done."""
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        say(f"{path}: cannot be written ({error.strerror}), so there is no log")
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def send(agent: socket.socket, **fields: Any) -> None:
    """Send a message to the agent; nothing happens if it is gone."""
    with suppress(OSError):
        agent.send(json.dumps(fields).encode())


class RankProcess:
    """The rank's own process and its output. `terminals`: rank 0's standard output and error; empty for other ranks."""

    def __init__(self, arguments: list[str], log: Path, title: str, terminals: list[int]) -> None:
        self._arguments, self._terminals = arguments, terminals
        begin = on_own_line(title, log)
        self._log = open_log(log)
        write_log(self._log, begin)
        self._streams: list[OutputStream] = []
        self._received: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for number in FORWARDED:
            signal.signal(number, self._forward)
        outputs = self._outputs() if self._terminals else [self._log, self._log]
        self._process = subprocess.Popen(
            python_command("-u", "-m", "ftsys", *self._arguments),
            stdin=subprocess.DEVNULL,
            env=os.environ | {"FTSYS_OWN_LOG": "1"},  # so that ranks above 0 write their errors too
            stdout=outputs[0],
            stderr=outputs[1],
            process_group=0,
            preexec_fn=signalled_at_our_exit(signal.SIGKILL),
        )
        for received in self._received:  # before there was a process to forward them to
            self._process.send_signal(received)
        for handle in set(outputs) - {self._log}:
            os.close(handle)
        return self

    def __exit__(self, *_: object) -> None:
        kill_group(self.pid)
        os.close(self._log)

    @property
    def pid(self) -> int:
        """The id of the rank's own process, which leads its process group."""
        assert self._process is not None, "entered first"
        return self._process.pid

    def _outputs(self) -> list[int]:
        """Return the files that the rank writes for the terminals; one for both if they are the same terminal."""
        first, second = self._terminals
        output = self._output(first)
        same = os.isatty(first) and os.isatty(second) and os.ttyname(first) == os.ttyname(second)
        return [output, output if same else self._output(second)]

    def _output(self, target: int) -> int:
        is_terminal = os.isatty(target)
        source, output = make_terminal(target) if is_terminal else os.pipe()
        self._streams.append(OutputStream(source, target, is_terminal, PlainText()))
        return output

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self._process is None:
            self._received.append(number)
        else:
            self._process.send_signal(number)

    def wait(self, agent: socket.socket) -> int:
        """Copy output until the rank ends. Returns its status as `subprocess` gives it, -N for signal N.

        If the agent is gone, nobody else ends the rank: it gets ORPHAN_SECONDS to save and is then killed.
        """
        assert self._process is not None, "entered first"
        kill_at = math.inf
        with selectors.DefaultSelector() as selector, _woken_by_signals() as woken:
            selector.register(woken, selectors.EVENT_READ, lambda: bool(woken.recv(64)))
            selector.register(agent, selectors.EVENT_READ, lambda: False)  # readable only when the agent is gone
            for stream in self._streams:
                selector.register(stream.source, selectors.EVENT_READ, partial(stream.copy, self._log))
            while self._process.poll() is None:
                _handle(selector, RANK_POLL_SECONDS)
                if agent not in selector.get_map() and kill_at == math.inf:
                    self._process.terminate()
                    kill_at = time.monotonic() + ORPHAN_SECONDS
                if time.monotonic() > kill_at:
                    self._process.kill()
        kill_group(self.pid)  # processes that the rank started and left behind
        for stream in self._streams:
            stream.finish(self._log)
        return int(self._process.returncode)


def _handle(selector: selectors.BaseSelector, seconds: float) -> None:
    """Handle what is readable within some seconds; a handler that returns False has ended and is removed."""
    for key, _ in selector.select(seconds):
        if not key.data():
            selector.unregister(key.fileobj)


@contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """Yield a socket that becomes readable at every signal, also at a child's end, so that none waits for a poll."""
    readable, writable = socket.socketpair()
    with readable, writable:
        writable.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # without a handler SIGCHLD wakes nothing
        former = signal.set_wakeup_fd(writable.fileno(), warn_on_full_buffer=False)
        try:
            yield readable
        finally:
            signal.set_wakeup_fd(former)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
