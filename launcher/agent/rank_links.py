"""The agent's connections to the ranks of its node: who they are, how each ended, and how to end them."""

import json
import os
import selectors
import signal
import socket
import struct
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.agent.process_tree import kill_group
from launcher.host.cpu_affinity import Share
from launcher.protocol import LONGEST_MESSAGE


@dataclass
class Link:
    """One rank: the process around it (`pid`), which leads to us, and the rank's own (`child`)."""

    socket: socket.socket
    rank: int | None = None
    pid: int | None = None
    child: int | None = None
    ended: bool = False


class RankLinks:
    """Listens under `name` for the ranks of this node. `on_end(rank, status)`: -N for signal N."""

    def __init__(
        self, selector: selectors.BaseSelector, logs: Path, share: Share, on_end: Callable[[int, int], None]
    ) -> None:
        self._selector, self._logs, self._share, self._on_end = selector, logs, share, on_end
        self.name = f"ftlaunch-{uuid.uuid4().hex}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("\0" + self.name)  # a name without a file: it is gone when we are
        self._listener.listen(1024)
        self._links: list[Link] = []
        self._told: signal.Signals | None = None
        self.ended: dict[int, int] = {}
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    @property
    def begun(self) -> bool:
        """Whether any rank has been started."""
        return bool(self._links) or bool(self.ended)

    @property
    def alive(self) -> bool:
        """Whether any rank or the process around it is still there."""
        return bool(self._links)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            connection.close()
            return
        link = Link(connection)
        self._links.append(link)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(link))

    def _read(self, link: Link) -> None:
        try:
            message = link.socket.recv(LONGEST_MESSAGE)
        except ConnectionError:
            message = b""
        if not message:
            self._drop(link)
            return
        told = json.loads(message)
        if "rank" in told:
            link.rank, link.pid = told["rank"], told["pid"]
            self._answer(link, told["local_rank"])
        elif "child" in told:
            link.child = told["child"]
            if self._told is not None:
                self._interrupt(link, self._told)  # it came to be after the others had been told
        else:
            self._end(link, told["ended"])

    def _answer(self, link: Link, local_rank: int) -> None:
        title = f"---- {time.strftime('%Y-%m-%d %H:%M:%S')} {socket.gethostname()}: rank {link.rank}"
        told = {
            "log": str(self._logs / f"rank-{link.rank}.log"),
            "title": title,
            "cpus": self._share.cpus[local_rank] if self._share.cpus else None,
        }
        handles = [1, 2] if link.rank == 0 else []
        socket.send_fds(link.socket, [json.dumps(told).encode()], handles)

    def _end(self, link: Link, status: int) -> None:
        link.ended = True
        if link.rank is not None and link.rank not in self.ended:
            self.ended[link.rank] = status
            self._on_end(link.rank, status)

    def _drop(self, link: Link) -> None:
        """The process around a rank has ended; if it told nothing before, it was killed, and its rank with it."""
        self._selector.unregister(link.socket)
        link.socket.close()
        self._links.remove(link)
        if not link.ended:
            self._end(link, -signal.SIGKILL)

    def interrupt(self, number: signal.Signals) -> None:
        """Send a signal to every rank that runs, and to those that are still to come."""
        self._told = number
        for link in self._links:
            self._interrupt(link, number)

    def _interrupt(self, link: Link, number: signal.Signals) -> None:
        if link.child is not None and link.pid is not None and not link.ended:
            with suppress(ProcessLookupError):
                os.kill(link.pid, number)

    def kill(self) -> None:
        """Kill every rank that is left, with what it started, and the process around it."""
        for link in self._links:
            if link.child is not None:
                kill_group(link.child)
            if link.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(link.pid, signal.SIGKILL)

    def release(self) -> None:
        """Let torchrun see how the ranks ended: until now their outer processes have waited."""
        for link in self._links:
            if link.ended:
                with suppress(OSError):
                    link.socket.send(b".")
