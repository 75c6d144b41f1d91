"""Starting the agents (`launcher.agent`): here, on every host over ssh, or on every node of an allocation."""

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

from ftsys.errors import LaunchError
from launcher.command_lines import agent_command, smallest_cpu_count, srun_command, ssh_command
from launcher.hostfile import check_host_name
from launcher.protocol import Message, Words, order, write_all
from launcher.timeouts import SCONTROL_SECONDS

HERE = frozenset({"localhost", "127.0.0.1"})
KEPT_BYTES = 4_000


@dataclass(frozen=True)
class Said:
    """Something an agent's process said: a word, or None when the process has ended."""

    by: "Agents"
    word: Message | None


@dataclass
class Agents:
    """A process that leads to the agents of some nodes: one agent itself, an ssh to one, or the srun of all.

    `place` names it in messages. What it writes to standard error is kept until the ranks have been started, as the
    reason why it could not, and passed on after that.
    """

    place: str
    nodes: tuple[int, ...]
    command: Sequence[str]
    inbox: "queue.Queue[Said]"
    own_pipe: bool = False
    """Whether words come up a pipe of their own, so that standard error stays the terminal."""
    started: bool = False
    errors: bytes = b""
    ended: bool = False
    process: "subprocess.Popen[bytes]" = field(init=False)

    def open(self) -> None:
        """Start the process and listen to it. Raises LaunchError if the program is not there."""
        read_end, write_end = os.pipe() if self.own_pipe else (-1, -1)
        command = [*self.command, str(write_end)] if self.own_pipe else list(self.command)
        try:
            self.process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stderr=None if self.own_pipe else subprocess.PIPE,
                pass_fds=[write_end] if self.own_pipe else [],
                start_new_session=True,  # a terminal's Ctrl-C comes to us, and from us to the ranks, once
            )
        except FileNotFoundError as error:
            raise LaunchError(f"{command[0]!r} is not found on this machine: install it, or put it on PATH.") from error
        finally:
            if self.own_pipe:
                os.close(write_end)
        stream = os.fdopen(read_end, "rb", buffering=0) if self.own_pipe else self.process.stderr
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def tell(self, **fields: object) -> None:
        """Give an order; nobody is told if the agents have gone."""
        assert self.process.stdin is not None, "asked for above"
        with suppress(OSError):
            write_all(self.process.stdin.fileno(), order(**fields))

    def _listen(self, stream: IO[bytes]) -> None:
        words = Words()
        with stream:
            while piece := os.read(stream.fileno(), 1 << 16):
                for part in words.feed(piece):
                    if isinstance(part, bytes):
                        self._pass_on(part)
                    else:
                        self.inbox.put(Said(self, part))
        self._pass_on(words.end())
        self.process.wait()
        self.inbox.put(Said(self, None))

    def _pass_on(self, text: bytes) -> None:
        self.errors = (self.errors + text)[-KEPT_BYTES:]
        if self.started and text:
            with suppress(OSError, ValueError):  # the terminal is gone
                sys.stderr.buffer.write(text)
                sys.stderr.flush()

    def hang_up(self) -> None:
        """Let the agents go: their standard input ends."""
        with suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()

    def end(self, deadline: float) -> None:
        """Wait for the process until `deadline` (monotonic seconds), then kill it; the far side sees its input end."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def local_agents(inbox: "queue.Queue[Said]") -> list[Agents]:
    """The agent of this machine."""
    return [Agents(socket.gethostname(), (0,), agent_command(sys.executable), inbox, own_pipe=True)]


def host_agents(
    hosts: Sequence[str], folder: str, environ: Mapping[str, str], inbox: "queue.Queue[Said]"
) -> list[Agents]:
    """An agent on every host, through ssh; without ssh where the only host is this machine."""
    if len(hosts) == 1 and hosts[0] in HERE | {socket.gethostname()}:
        return local_agents(inbox)
    if hosts[0] in HERE:
        raise LaunchError(
            f"the first host is {hosts[0]!r}, under which the others do not reach it: write its name or its address."
        )
    return [
        Agents(host, (number,), ssh_command(host, sys.executable, folder, environ), inbox)
        for number, host in enumerate(hosts)
    ]


def slurm_agents(hosts: Sequence[str], environ: Mapping[str, str], inbox: "queue.Queue[Said]") -> list[Agents]:
    """An agent on every node of the allocation, through one srun."""
    cpus = smallest_cpu_count(environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    command = srun_command(sys.executable, len(hosts), cpus)
    return [Agents(f"srun on {len(hosts)} nodes", tuple(range(len(hosts))), command, inbox)]


def allocated_hosts(environ: Mapping[str, str]) -> list[str]:
    """The node names of the allocation, in SLURM's order. Raises LaunchError where scontrol cannot tell them."""
    nodelist = environ.get("SLURM_JOB_NODELIST", "")
    try:
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", "--", nodelist],
            capture_output=True,
            text=True,
            timeout=SCONTROL_SECONDS,
            check=True,
        )
    except (FileNotFoundError, subprocess.SubprocessError) as error:
        raise LaunchError(f"scontrol does not tell the nodes of SLURM_JOB_NODELIST={nodelist!r} ({error}).") from error
    hosts = [check_host_name(name) for name in listed.stdout.split()]
    if not hosts:
        raise LaunchError(f"SLURM_JOB_NODELIST={nodelist!r} names no node: start inside a SLURM allocation.")
    return hosts
