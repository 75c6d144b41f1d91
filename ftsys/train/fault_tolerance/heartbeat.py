"""Exchanges heartbeats between the ranks of a run, over TCP connections from every rank to rank 0.

It is independent of the collectives. When a rank dies, its connection closes, so the other ranks learn of it within a
second, even if they wait in a collective. A rank whose machine is disconnected sends nothing more and is lost after
SILENT_HEARTBEATS. Messages are lines of JSON. Each rank has one thread for this, which never uses a GPU.
"""

import hmac
import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from ftsys.distributed import all_gather_json, broadcast_json
from ftsys.errors import LaunchError
from ftsys.files.untrusted import json_object
from ftsys.train.fault_tolerance.listener import master_address, open_listener

HEARTBEAT_SECONDS = 1.0
"""Time between two heartbeats of a rank."""

SILENT_HEARTBEATS = 10
"""Own heartbeats without a message from a rank after which that rank is lost.

They are counted, not timed, so that a run may be suspended (SIGSTOP) and resumed.
"""

CONNECT_SECONDS = 60.0
_LARGEST_MESSAGE = 1 << 20
_LONGEST_HELLO = 1000
_MOST_WAITING = 256
"""Connections that have not said who they are; a process may have 1,024 files open by default."""

Message = dict[str, Any]


class Heartbeat:
    """Holds this rank's connections. Rank 0 is connected to every other rank, the others to rank 0 only.

    Its thread calls `on_message(rank, message)` for a message, `on_lost(rank, reason)` when a rank is lost, and
    `on_heartbeat()` after each heartbeat. `state()` returns the fields that are sent with each heartbeat.
    """

    def __init__(
        self,
        on_message: Callable[[int, Message], None],
        on_lost: Callable[[int, str], None],
        on_heartbeat: Callable[[], None],
        state: Callable[[], Message],
        most_silent: int | None = None,
    ) -> None:
        """Set up, without a connection. `most_silent` replaces SILENT_HEARTBEATS."""
        self._most_silent = SILENT_HEARTBEATS if most_silent is None else most_silent
        self._on_message, self._on_lost, self._on_heartbeat, self._state = on_message, on_lost, on_heartbeat, state
        self._connections: dict[int, _Connection] = {}
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ftsys-heartbeat", daemon=True)

    def connect(self, rank: int, ranks: int) -> None:
        """Connect the ranks and start the thread. Collective. Raises LaunchError if a rank cannot reach rank 0."""
        if ranks > 1:
            self._connections = _connections(rank, ranks)
        for number, connection in self._connections.items():
            self._selector.register(connection.socket, selectors.EVENT_READ, number)
        self._woken, self._wake = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()

    def send(self, message: Message) -> None:
        """Send a message to every connected rank."""
        for connection in list(self._connections.values()):
            connection.send(message)

    def close(self, wait: bool = True) -> None:
        """End the thread and close the connections. Call it once, after `connect`."""
        self._closing.set()
        self._wake.close()  # the thread reads its end, and need not sleep until the next heartbeat
        if wait and self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(2 * HEARTBEAT_SECONDS)
        for each in (self._woken, *(connection.socket for connection in self._connections.values())):
            each.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._closing.is_set():
            for key, _ in self._selector.select(max(0.0, min(HEARTBEAT_SECONDS, due - time.monotonic()))):
                if key.fileobj is not self._woken:
                    self._read(key.data)
            if time.monotonic() >= due:
                due = time.monotonic() + HEARTBEAT_SECONDS
                self._send_heartbeat()

    def _read(self, number: int) -> None:
        connection = self._connections[number]
        messages, ended = connection.receive()
        for message in messages:
            self._on_message(number, message)
        if ended:
            self._drop(number, "its connection closed")

    def _send_heartbeat(self) -> None:
        self.send({"kind": "heartbeat", **self._state()})
        for number, connection in list(self._connections.items()):
            connection.silent += 1
            if connection.silent > self._most_silent:
                self._drop(number, f"it sent nothing for {self._most_silent * HEARTBEAT_SECONDS:g} s")
        self._on_heartbeat()

    def _drop(self, number: int, reason: str) -> None:
        if not self._closing.is_set():
            self._on_lost(number, reason)  # the lost rank is told too: it may have been suspended
        connection = self._connections.pop(number)
        self._selector.unregister(connection.socket)
        connection.socket.close()


class _Connection:
    """Sends and receives messages over one TCP connection; `silent` counts own heartbeats since its last message."""

    def __init__(self, connection: socket.socket, received: bytes = b"") -> None:
        """`received` are bytes of the connection that have been read already."""
        self.socket = connection
        self.silent = 0
        self._pending = received
        self._sending = threading.Lock()
        connection.settimeout(HEARTBEAT_SECONDS)

    def send(self, message: Message) -> None:
        """Send one message. Ignore a closed connection: the reading side detects it."""
        with self._sending:
            try:
                self.socket.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                return

    def receive(self) -> tuple[list[Message], bool]:
        """Return the complete messages received, and True if the connection is closed or its data is not valid."""
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return [], False
        except OSError:
            return [], True
        self.silent = 0
        *whole, self._pending = (self._pending + data).split(b"\n")
        try:
            messages = [json_object(text) for text in whole]
        except ValueError:
            return [], True
        return messages, not data or len(self._pending) > _LARGEST_MESSAGE


def _connections(rank: int, ranks: int) -> dict[int, _Connection]:
    """Return rank 0's connections to all others, or the one to rank 0. Collective."""
    addresses = all_gather_json(master_address())
    listener, address = open_listener(addresses) if rank == 0 else (None, "")
    port = listener.getsockname()[1] if listener else 0
    address, port, token = broadcast_json([address, port, secrets.token_hex(16)])
    if listener is None:
        return {0: _connected(rank, address, port, token)}
    with listener:
        return _accepted(listener, ranks, token)


def _accepted(listener: socket.socket, ranks: int, token: str) -> dict[int, _Connection]:
    """Return a connection to each rank above 0; close connections that do not send this run's token.

    All connections are read at once, so that a stranger who sends nothing holds up no rank.
    """
    connections: dict[int, _Connection] = {}
    deadline = time.monotonic() + CONNECT_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while len(connections) < ranks - 1:
            left = deadline - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                _close_strangers(selector, listener)
                _refuse_missing(sorted(set(range(1, ranks)) - set(connections)))
            for key, _ in ready:
                if key.fileobj is listener:
                    _greet(selector, listener, ranks)
                elif (hello := _hello(selector, key)) is not None:
                    _take(connections, hello, ranks, token)
        _close_strangers(selector, listener)
    return connections


def _greet(selector: selectors.BaseSelector, listener: socket.socket, ranks: int) -> None:
    """Accept a connection. Of more than `_MOST_WAITING` and the ranks, close the oldest: ranks speak at once."""
    try:
        opened = listener.accept()[0]
    except OSError:  # it has left already
        return
    opened.setblocking(False)
    selector.register(opened, selectors.EVENT_READ, bytearray())
    waiting = [key.fileobj for key in selector.get_map().values() if key.fileobj is not listener]
    if len(waiting) > _MOST_WAITING + ranks:
        oldest = waiting[0]
        assert isinstance(oldest, socket.socket)
        selector.unregister(oldest)
        oldest.close()


def _refuse_missing(missing: list[int]) -> NoReturn:
    raise LaunchError(
        f"rank(s) {missing} did not reach rank 0 within {CONNECT_SECONDS:g} s: "
        "open the ports between the machines to each other."
    )


def _close_strangers(selector: selectors.BaseSelector, listener: socket.socket) -> None:
    for key in list(selector.get_map().values()):
        if isinstance(key.fileobj, socket.socket) and key.fileobj is not listener:
            key.fileobj.close()


_Hello = tuple[socket.socket, bytes, bytes]
"""A connection, its first line, and what came after it."""


def _hello(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> _Hello | None:
    """Read more of a connection's first line and return it when it is whole; close a connection that ends before."""
    connection, received = key.fileobj, key.data
    assert isinstance(connection, socket.socket)
    try:
        data = connection.recv(_LONGEST_HELLO)
    except OSError:
        data = b""
    received += data
    line, newline, rest = bytes(received).partition(b"\n")
    if not newline and data and len(received) < _LONGEST_HELLO:
        return None
    selector.unregister(connection)
    if newline:
        return connection, line, rest
    connection.close()
    return None


def _take(connections: dict[int, _Connection], hello: _Hello, ranks: int, token: str) -> None:
    """Keep a connection whose first line has this run's token and names a rank; close any other."""
    connection, line, rest = hello
    try:
        said = json_object(line)
    except ValueError:
        said = {}
    rank = said.get("rank")
    given = str(said.get("token")).encode("utf-8", "surrogatepass")  # JSON may escape what UTF-8 cannot hold
    known = hmac.compare_digest(given, token.encode())
    if known and isinstance(rank, int) and 0 < rank < ranks:
        connections[rank] = _Connection(connection, rest)
    else:
        connection.close()


def _connected(rank: int, address: str, port: int, token: str) -> _Connection:
    host = address or os.environ.get("MASTER_ADDR", "localhost")
    try:
        opened = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    except OSError as error:
        raise LaunchError(
            f"rank {rank} cannot reach rank 0 at {host!r}, port {port} ({error}): "
            "open the ports between the machines to each other."
        ) from error
    connection = _Connection(opened)
    connection.send({"rank": rank, "token": token})
    return connection
