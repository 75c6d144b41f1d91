"""Which ranks of a run are alive, told apart from the collectives: a star of TCP connections around rank 0.

A rank that dies takes its connection with it, so the others learn of it within a second, whatever they wait for; a rank
whose machine is cut off falls silent. Words are lines of JSON. Each rank has one thread, which never touches a device.
"""

import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from ftsys.distributed import broadcast_object
from ftsys.errors import LaunchError

BEAT_SECONDS = 1.0
"""How often each rank says that it is there."""

SILENT_BEATS = 10
"""Beats without a word after which a rank counts as lost. Counted, not timed: a run may be suspended and go on."""

CONNECT_SECONDS = 60.0
_LONGEST_WORD = 1 << 20

Word = dict[str, Any]


class Peers:
    """This rank's end of the star. `on_word(rank, word)` and `on_lost(rank, why)` are called from the star's thread.

    `state` is called at each beat for what is sent with it. Rank 0 hears from every rank, the others from rank 0 alone.
    """

    def __init__(
        self,
        on_word: Callable[[int, Word], None],
        on_lost: Callable[[int, str], None],
        on_beat: Callable[[], None],
        state: Callable[[], Word],
    ) -> None:
        self._on_word, self._on_lost, self._on_beat, self._state = on_word, on_lost, on_beat, state
        self._lines: dict[int, _Line] = {}
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ftsys-peers", daemon=True)

    def connect(self, rank: int, ranks: int) -> None:
        """Make the star; every rank calls it. Collective. Raises LaunchError where a rank cannot reach rank 0."""
        if ranks > 1:
            listener = socket.create_server(("", 0)) if rank == 0 else None
            port = listener.getsockname()[1] if listener else 0
            port, token = broadcast_object((port, secrets.token_hex(16)))
            if listener is not None:
                with listener:
                    self._lines = _accepted(listener, ranks, token)
            else:
                self._lines = {0: _connected(rank, port, token)}
        for number, line in self._lines.items():
            self._selector.register(line.socket, selectors.EVENT_READ, number)
        self._thread.start()

    def tell(self, word: Word) -> None:
        """Send a word to every rank at the other ends."""
        for line in list(self._lines.values()):
            line.send(word)

    def close(self, wait: bool = True) -> None:
        """End the thread and the connections."""
        self._closing.set()
        if wait and self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(2 * BEAT_SECONDS)
        for line in self._lines.values():
            line.socket.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._closing.is_set():
            for key, _ in self._selector.select(max(0.0, min(BEAT_SECONDS, due - time.monotonic()))):
                self._read(key.data)
            if time.monotonic() >= due:
                due = time.monotonic() + BEAT_SECONDS
                self._beat()

    def _read(self, number: int) -> None:
        line = self._lines[number]
        words, ended = line.receive()
        for word in words:
            self._on_word(number, word)
        if ended:
            self._drop(number, "its connection ended")

    def _beat(self) -> None:
        self.tell({"kind": "beat", **self._state()})
        for number, line in list(self._lines.items()):
            line.silent += 1
            if line.silent > SILENT_BEATS:
                self._drop(number, f"nothing was heard of it for {SILENT_BEATS * BEAT_SECONDS:g} s")
        self._on_beat()

    def _drop(self, number: int, why: str) -> None:
        line = self._lines.pop(number)
        self._selector.unregister(line.socket)
        line.socket.close()
        if not self._closing.is_set():
            self._on_lost(number, why)


class _Line:
    """One connection: words out whole or not at all, words in as they come."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.silent = 0
        self._pending = b""
        self._sending = threading.Lock()
        connection.settimeout(BEAT_SECONDS)

    def send(self, word: Word) -> None:
        """A peer that is gone is noticed by reading; there is nobody left to tell."""
        with self._sending:
            try:
                self.socket.sendall(json.dumps(word).encode() + b"\n")
            except OSError:
                return

    def receive(self) -> tuple[list[Word], bool]:
        """The words that have come in, and whether the other end is gone or speaks something else."""
        try:
            got = self.socket.recv(1 << 16)
        except TimeoutError:
            return [], False
        except OSError:
            return [], True
        self.silent = 0
        *whole, self._pending = (self._pending + got).split(b"\n")
        try:
            words = [json.loads(text) for text in whole]
        except ValueError:
            return [], True
        return words, not got or len(self._pending) > _LONGEST_WORD


def _accepted(listener: socket.socket, ranks: int, token: str) -> dict[int, _Line]:
    """A line to each rank above 0. Whoever does not know the token is nobody of this run."""
    lines: dict[int, _Line] = {}
    deadline = time.monotonic() + CONNECT_SECONDS
    while len(lines) < ranks - 1:
        listener.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            missing = sorted(set(range(1, ranks)) - set(lines))
            raise LaunchError(
                f"rank(s) {missing} did not reach rank 0 within {CONNECT_SECONDS:g} s: "
                "open the ports between the machines to each other."
            ) from None
        connection.settimeout(5.0)
        hello = _hello(connection)
        if hello.get("token") == token:
            lines[int(hello["rank"])] = _Line(connection)
        else:
            connection.close()
    return lines


def _hello(connection: socket.socket) -> Word:
    try:
        with connection.makefile("rb", buffering=0) as stream:  # not a byte beyond the line
            word = json.loads(stream.readline(1000))
    except (OSError, ValueError):
        return {}
    return word if isinstance(word, dict) else {}


def _connected(rank: int, port: int, token: str) -> _Line:
    host = os.environ.get("MASTER_ADDR", "localhost")
    try:
        connection = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    except OSError as error:
        raise LaunchError(
            f"rank {rank} cannot reach rank 0 at {host!r}, port {port} ({error}): "
            "open the ports between the machines to each other."
        ) from error
    line = _Line(connection)
    line.send({"rank": rank, "token": token})
    return line
