"""Connects the agent with the ranks of its node: their process ids, their ends, and the signals to them."""

import json
import os
import selectors
import signal
import socket
import struct
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.agent.process_tree import kill_group
from launcher.host.cpu_affinity import CoreAssignment
from launcher.log_files import title_line
from launcher.protocol import MAX_MESSAGE_BYTES


@dataclass
class RankLink:
    """The connection to one rank's wrapper process (`launcher.agent.rank`), and the ids of both processes."""

    socket: socket.socket
    rank: int | None = None
    wrapper_pid: int | None = None
    rank_pid: int | None = None
    ended: bool = False


class RankLinks:
    """Listens on the socket `name` for the ranks of this node. Calls `on_exit(rank, status)`, -N for signal N."""

    def __init__(
        self, selector: selectors.BaseSelector, logs: Path, cores: CoreAssignment, on_exit: Callable[[int, int], None]
    ) -> None:
        self._selector, self._logs, self._cores, self._on_exit = selector, logs, cores, on_exit
        self.name = f"ftlaunch-{uuid.uuid4().hex}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("\0" + self.name)  # an abstract name: no file that could stay behind
        self._listener.listen(1024)
        self._links: list[RankLink] = []
        self._interrupted_by: signal.Signals | None = None
        self.ended: dict[int, int] = {}
        """Status of each rank that has ended."""
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    @property
    def any_started(self) -> bool:
        """True once a rank has been started."""
        return bool(self._links) or bool(self.ended)

    @property
    def any_left(self) -> bool:
        """True while a rank or its wrapper process is still there."""
        return bool(self._links)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            connection.close()
            return
        link = RankLink(connection)
        self._links.append(link)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(link))

    def _read(self, link: RankLink) -> None:
        try:
            data = link.socket.recv(MAX_MESSAGE_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._drop(link)
            return
        message = json.loads(data)
        if "rank" in message:
            link.rank, link.wrapper_pid = message["rank"], message["wrapper_pid"]
            self._send_settings(link, message["local_rank"])
        elif "rank_pid" in message:
            link.rank_pid = message["rank_pid"]
            if self._interrupted_by is not None:
                self._interrupt(link, self._interrupted_by)  # this rank started after the others got the signal
        else:
            self._on_end(link, message["exit"])

    def _send_settings(self, link: RankLink, local_rank: int) -> None:
        settings = {
            "log": str(self._logs / f"rank-{link.rank}.log"),
            "title": title_line(f"rank {link.rank}"),
            "cpus": self._cores.cpus[local_rank] if self._cores.cpus else None,
        }
        terminals = [1, 2] if link.rank == 0 else []
        socket.send_fds(link.socket, [json.dumps(settings).encode()], terminals)

    def _on_end(self, link: RankLink, status: int) -> None:
        link.ended = True
        if link.rank is not None and link.rank not in self.ended:
            self.ended[link.rank] = status
            self._on_exit(link.rank, status)

    def _drop(self, link: RankLink) -> None:
        """Remove a wrapper process that has ended. If it reported no status, it was killed, and its rank with it."""
        self._selector.unregister(link.socket)
        link.socket.close()
        self._links.remove(link)
        if not link.ended:
            self._on_end(link, -signal.SIGKILL)

    def interrupt(self, number: signal.Signals) -> None:
        """Send a signal to every running rank, and to those that start later."""
        self._interrupted_by = number
        for link in self._links:
            self._interrupt(link, number)

    def _interrupt(self, link: RankLink, number: signal.Signals) -> None:
        if link.rank_pid is not None and link.wrapper_pid is not None and not link.ended:
            with suppress(ProcessLookupError):
                os.kill(link.wrapper_pid, number)

    def kill(self) -> None:
        """Kill every rank that is left, the processes it started, and its wrapper process."""
        for link in self._links:
            if link.rank_pid is not None:
                kill_group(link.rank_pid)
            if link.wrapper_pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(link.wrapper_pid, signal.SIGKILL)

    def release(self) -> None:
        """Let torchrun see the ends of the ranks: until now the wrapper processes have waited."""
        for link in self._links:
            if link.ended:
                with suppress(OSError):
                    link.socket.send(b".")
