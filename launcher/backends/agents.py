"""Starts agents (`launcher.agent`) and talks to them: on this machine, on hosts over ssh, or on nodes through srun."""

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from ftsys.console.printer import copy_err
from ftsys.errors import LaunchError
from launcher.command_lines import agent_command, missing_program, srun_command, ssh_command
from launcher.hostfile import check_host_name
from launcher.protocol import Message, ReportReader, encode_order, write_all
from launcher.timeouts import SCONTROL_SECONDS

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1"})
MAX_ERROR_BYTES = 4_000


@dataclass(frozen=True)
class Event:
    """A report that came over a connection, or None when the connection's process has ended."""

    sender: "AgentConnection"
    report: Message | None


@dataclass
class AgentConnection:
    """A process that leads to the agents of some nodes: one agent itself, an ssh to one agent, or the srun of all.

    `place` names it in messages. Its standard error is kept until the ranks start, as the reason for a failed start;
    from then on it is also copied to this process's standard error.
    """

    place: str
    nodes: tuple[int, ...]
    command: Sequence[str]
    events: "queue.Queue[Event]"
    own_pipe: bool = False
    """True if reports come up a pipe of their own, so that standard error stays the terminal."""
    started: bool = False
    errors: bytes = b""
    ended: bool = False
    process: "subprocess.Popen[bytes]" = field(init=False)

    def open(self) -> None:
        """Start the process and a thread that reads it. Raises LaunchError if the program is not on this machine."""
        read_end, write_end = os.pipe() if self.own_pipe else (-1, -1)
        command = [*self.command, str(write_end)] if self.own_pipe else list(self.command)
        try:
            self.process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stderr=None if self.own_pipe else subprocess.PIPE,
                pass_fds=[write_end] if self.own_pipe else [],
                start_new_session=True,  # a terminal's Ctrl-C then reaches only the controller, which forwards it once
            )
        except FileNotFoundError as error:
            raise missing_program(command) from error
        finally:
            if self.own_pipe:
                os.close(write_end)
        stream = os.fdopen(read_end, "rb", buffering=0) if self.own_pipe else self.process.stderr
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def send(self, kind: str, **fields: object) -> None:
        """Send an order; nothing happens if the agents are gone."""
        assert self.process.stdin is not None, "opened as a pipe"
        with suppress(OSError):
            write_all(self.process.stdin.fileno(), encode_order(kind, **fields))

    def _read(self, stream: IO[bytes]) -> None:
        reports = ReportReader()
        try:
            with stream:
                while piece := os.read(stream.fileno(), 1 << 16):
                    for part in reports.feed(piece):
                        if isinstance(part, bytes):
                            self._copy_errors(part)
                        else:
                            self.events.put(Event(self, part))
            self._copy_errors(reports.end())
            self.process.wait()
        finally:  # the controller waits for this event
            self.events.put(Event(self, None))

    def _copy_errors(self, text: bytes) -> None:
        self.errors = (self.errors + text)[-MAX_ERROR_BYTES:]
        if self.started and text:
            copy_err(text)

    def close_input(self) -> None:
        """Close the agents' standard input, which tells them to end."""
        with suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()

    def end(self, deadline: float) -> None:
        """Wait for the process until `deadline` (monotonic seconds), then kill it. A remote agent ends by itself."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def local_agents(events: "queue.Queue[Event]") -> list[AgentConnection]:
    """Return the connection to an agent on this machine, not yet open."""
    return [AgentConnection(socket.gethostname(), (0,), agent_command(sys.executable), events, own_pipe=True)]


def ssh_agents(
    hosts: Sequence[str], folder: str, environ: Mapping[str, str], events: "queue.Queue[Event]"
) -> list[AgentConnection]:
    """Return an ssh connection to an agent on every host; a local one if the only host is this machine.

    Raises LaunchError if other hosts would have to reach this machine as `localhost`.
    """
    if len(hosts) == 1 and hosts[0] in LOCAL_NAMES | {socket.gethostname()}:
        return local_agents(events)
    if hosts[0] in LOCAL_NAMES:
        raise LaunchError(
            f"the first host is {hosts[0]!r}, and the others cannot reach it by that name: write its name or address."
        )
    return [
        AgentConnection(host, (number,), ssh_command(host, sys.executable, folder, environ), events)
        for number, host in enumerate(hosts)
    ]


def slurm_agents(
    hosts: Sequence[str], environ: Mapping[str, str], events: "queue.Queue[Event]"
) -> list[AgentConnection]:
    """Return one srun connection to the agents on nodes of the allocation. Raises LaunchError as `srun_prefix` does."""
    command = srun_command(sys.executable, hosts, environ)
    return [AgentConnection(f"srun on {len(hosts)} nodes", tuple(range(len(hosts))), command, events)]


def allocated_hosts(environ: Mapping[str, str]) -> list[str]:
    """Return the node names of the allocation, in SLURM's order. Raises LaunchError if scontrol cannot list them."""
    nodelist = environ.get("SLURM_JOB_NODELIST", "")
    command = ["scontrol", "show", "hostnames", "--", nodelist]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=SCONTROL_SECONDS, check=True)
    except (FileNotFoundError, subprocess.SubprocessError) as error:
        raise LaunchError(f"scontrol cannot list the nodes of SLURM_JOB_NODELIST={nodelist!r} ({error}).") from error
    hosts = [check_host_name(name) for name in listed.stdout.split()]
    if not hosts:
        raise LaunchError(f"SLURM_JOB_NODELIST={nodelist!r} names no node: start inside a SLURM allocation.")
    return hosts
