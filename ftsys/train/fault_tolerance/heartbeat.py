"""Exchanges heartbeats between the ranks of a run, over TCP connections from every rank to rank 0.

It is independent of the collectives. When a rank dies, its connection closes, so the other ranks learn of it within a
second, even if they wait in a collective. A rank whose machine is disconnected sends nothing more and is lost after
SILENT_HEARTBEATS. Messages are lines of JSON. Each rank has one thread for this, which never uses a GPU.
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

HEARTBEAT_SECONDS = 1.0
"""Time between two heartbeats of a rank."""

SILENT_HEARTBEATS = 10
"""Own heartbeats without a message from a rank after which that rank is lost.

They are counted, not timed, so that a run may be suspended (SIGSTOP) and resumed.
"""

CONNECT_SECONDS = 60.0
_LARGEST_MESSAGE = 1 << 20

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
    ) -> None:
        self._on_message, self._on_lost, self._on_heartbeat, self._state = on_message, on_lost, on_heartbeat, state
        self._connections: dict[int, _Connection] = {}
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ftsys-heartbeat", daemon=True)

    def connect(self, rank: int, ranks: int) -> None:
        """Connect the ranks and start the thread. Collective. Raises LaunchError if a rank cannot reach rank 0."""
        if ranks > 1:
            listener = socket.create_server(("", 0)) if rank == 0 else None
            port = listener.getsockname()[1] if listener else 0
            port, token = broadcast_object((port, secrets.token_hex(16)))
            if listener is not None:
                with listener:
                    self._connections = _accepted(listener, ranks, token)
            else:
                self._connections = {0: _connected(rank, port, token)}
        for number, connection in self._connections.items():
            self._selector.register(connection.socket, selectors.EVENT_READ, number)
        self._thread.start()

    def send(self, message: Message) -> None:
        """Send a message to every connected rank."""
        for connection in list(self._connections.values()):
            connection.send(message)

    def close(self, wait: bool = True) -> None:
        """End the thread and close the connections."""
        self._closing.set()
        if wait and self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(2 * HEARTBEAT_SECONDS)
        for connection in self._connections.values():
            connection.socket.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._closing.is_set():
            for key, _ in self._selector.select(max(0.0, min(HEARTBEAT_SECONDS, due - time.monotonic()))):
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
            if connection.silent > SILENT_HEARTBEATS:
                self._drop(number, f"it sent nothing for {SILENT_HEARTBEATS * HEARTBEAT_SECONDS:g} s")
        self._on_heartbeat()

    def _drop(self, number: int, reason: str) -> None:
        connection = self._connections.pop(number)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if not self._closing.is_set():
            self._on_lost(number, reason)


class _Connection:
    """Sends and receives messages over one TCP connection; `silent` counts own heartbeats since its last message."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.silent = 0
        self._pending = b""
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
            messages = [json.loads(text) for text in whole]
        except ValueError:
            return [], True
        return messages, not data or len(self._pending) > _LARGEST_MESSAGE


def _accepted(listener: socket.socket, ranks: int, token: str) -> dict[int, _Connection]:
    """Return a connection to each rank above 0; close connections that do not send this run's token."""
    connections: dict[int, _Connection] = {}
    deadline = time.monotonic() + CONNECT_SECONDS
    while len(connections) < ranks - 1:
        listener.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            missing = sorted(set(range(1, ranks)) - set(connections))
            raise LaunchError(
                f"rank(s) {missing} did not reach rank 0 within {CONNECT_SECONDS:g} s: "
                "open the ports between the machines to each other."
            ) from None
        connection.settimeout(5.0)
        hello = _hello(connection)
        if hello.get("token") == token:
            connections[int(hello["rank"])] = _Connection(connection)
        else:
            connection.close()
    return connections


def _hello(connection: socket.socket) -> Message:
    try:
        with connection.makefile("rb", buffering=0) as stream:  # unbuffered: reads no byte after the line
            message = json.loads(stream.readline(1000))
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) else {}


def _connected(rank: int, port: int, token: str) -> _Connection:
    host = os.environ.get("MASTER_ADDR", "localhost")
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
