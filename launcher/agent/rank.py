"""Runs one rank for torchrun or the deepspeed launcher: `python -m launcher.agent.rank WORDS` runs `ftsys WORDS`.

It binds the rank to its cores, sends its output where it belongs, tells the node's agent exactly how it ended, which
the launchers hide, and takes everything of the rank along when it ends.
"""

import json
import math
import os
import select
import selectors
import signal
import socket
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

from launcher.agent.process_tree import die_with_parent, kill_group
from launcher.agent.terminal import PlainText, copy_size, make_terminal
from launcher.protocol import AGENT, LONGEST_MESSAGE, write_all
from launcher.timeouts import ORPHAN_SECONDS, RANK_POLL_SECONDS

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclass
class Stream:
    """One of rank 0's outputs: read from `source`, written to `target` and, as plain text, to the log."""

    source: int
    target: int
    is_terminal: bool
    text: PlainText

    def copy(self, log: int) -> bool:
        """Copy what there is; False at the end."""
        try:
            piece = os.read(self.source, 1 << 16)
        except OSError:  # a terminal whose other side was closed
            piece = b""
        if not piece:
            return False
        if self.is_terminal:
            copy_size(self.target, self.source)
        write_all(log, self.text.feed(piece) if self.is_terminal else piece)
        with suppress(OSError):  # nobody reads any more: the log goes on
            write_all(self.target, piece)
        return True

    def finish(self, log: int) -> None:
        """Copy what was written last."""
        while select.select([self.source], [], [], 0)[0] and self.copy(log):
            pass
        write_all(log, self.text.end())


def main(words: list[str]) -> int:
    """Run the rank and return its status, 128 + N for signal N."""
    die_with_parent(signal.SIGTERM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
        agent.connect("\0" + os.environ.pop(AGENT))
        rank, local_rank = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK"))
        tell(agent, rank=rank, local_rank=local_rank, pid=os.getpid())
        answer, handles, _, _ = socket.recv_fds(agent, LONGEST_MESSAGE, 2)
        told = json.loads(answer)
        if told["cpus"]:
            os.sched_setaffinity(0, told["cpus"])
        with Rank(words, Path(told["log"]), told["title"], handles) as child:
            tell(agent, child=child.pid)
            status = child.wait(agent)
        tell(agent, ended=status)
        if status:
            # Until the agent says so, torchrun shall not know: it would interrupt the others, who leave by themselves.
            with suppress(OSError):
                agent.recv(1)
    return status if status >= 0 else 128 - status


def tell(agent: socket.socket, **fields: Any) -> None:
    """Send a message to the agent; nobody is told if it has gone."""
    with suppress(OSError):
        agent.send(json.dumps(fields).encode())


class Rank:
    """The rank's own process and its output. With `terminals` (standard output and error) it is rank 0."""

    def __init__(self, words: list[str], log: Path, title: str, terminals: list[int]) -> None:
        self._words, self._terminals = words, terminals
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        write_all(self._log, f"{title}\n".encode())
        self._streams: list[Stream] = []
        self._received: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for number in FORWARDED:
            signal.signal(number, self._forward)
        outputs = self._outputs() if self._terminals else [self._log, self._log]
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "ftsys", *self._words],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"FTSYS_OWN_LOG": "1"},  # so ranks above 0 need not keep their errors to themselves
            stdout=outputs[0],
            stderr=outputs[1],
            process_group=0,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )
        for received in self._received:  # while there was nobody to hand it to
            self._process.send_signal(received)
        for handle in set(outputs) - {self._log}:
            os.close(handle)
        return self

    def __exit__(self, *_: object) -> None:
        kill_group(self.pid)
        os.close(self._log)

    @property
    def pid(self) -> int:
        """The rank's own process, which leads its process group."""
        assert self._process is not None, "entered first"
        return self._process.pid

    def _outputs(self) -> list[int]:
        """Where the rank writes what is to come out at the terminals; one place where both are the same terminal."""
        first, second = self._terminals
        output = self._output(first)
        same = os.isatty(first) and os.isatty(second) and os.ttyname(first) == os.ttyname(second)
        return [output, output if same else self._output(second)]

    def _output(self, target: int) -> int:
        is_terminal = os.isatty(target)
        source, output = make_terminal(target) if is_terminal else os.pipe()
        self._streams.append(Stream(source, target, is_terminal, PlainText()))
        return output

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if self._process is None:
            self._received.append(number)
        else:
            self._process.send_signal(number)

    def wait(self, agent: socket.socket) -> int:
        """Copy output until the rank ends; returns its status as `subprocess` gives it, -N for signal N.

        Where the agent has gone, nobody else will end the rank: it gets a moment to save, and is killed.
        """
        assert self._process is not None, "entered first"
        kill_at = math.inf
        with selectors.DefaultSelector() as selector, _woken_by_signals() as woken:
            selector.register(woken, selectors.EVENT_READ, lambda: bool(woken.recv(64)))
            selector.register(agent, selectors.EVENT_READ, lambda: False)  # it says nothing while the rank runs
            for stream in self._streams:
                selector.register(stream.source, selectors.EVENT_READ, partial(stream.copy, self._log))
            while self._process.poll() is None:
                _handle(selector, RANK_POLL_SECONDS)
                if agent not in selector.get_map() and kill_at == math.inf:
                    self._process.terminate()
                    kill_at = time.monotonic() + ORPHAN_SECONDS
                if time.monotonic() > kill_at:
                    self._process.kill()
        kill_group(self.pid)  # what it started and left behind
        for stream in self._streams:
            stream.finish(self._log)
        return int(self._process.returncode)


def _handle(selector: selectors.BaseSelector, seconds: float) -> None:
    """Do what is due within some seconds; whatever answers False has ended and is left out from then on."""
    for key, _ in selector.select(seconds):
        if not key.data():
            selector.unregister(key.fileobj)


@contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """A socket that becomes readable at every signal, a child's end included: nothing waits for the clock then."""
    readable, writable = socket.socketpair()
    with readable, writable:
        writable.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # without a handler it wakes nobody
        former = signal.set_wakeup_fd(writable.fileno(), warn_on_full_buffer=False)
        try:
            yield readable
        finally:
            signal.set_wakeup_fd(former)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
