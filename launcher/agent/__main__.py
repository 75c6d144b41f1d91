"""Runs an agent, `ftlaunch`'s process on each node: it starts torchrun there and reports how its ranks end.

Orders come on standard input (`launcher.protocol`). When that is closed, the controller has died or is cut off: the
agent stops its ranks and ends, so that nothing stays behind on a remote machine. It does not import torch, and starts
in some hundredths of a second.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

from ftsys.console.child_python import SAFE_PATH
from ftsys.console.parent_exit import signalled_at_our_exit
from ftsys.cpus.usable import usable_cores
from ftsys.errors import STOPPED_EARLY, LaunchError
from launcher.agent.process_tree import adopt_orphans, kill_children
from launcher.agent.rank_links import RankLinks
from launcher.command_lines import LaunchSpec, launcher_command
from launcher.host.cpu_affinity import CoreAssignment, assign_cores, thread_environment
from launcher.host.preflight import check_machine, rendezvous_port
from launcher.host.rank_environment import CPU_ENVIRONMENT, interface_environment
from launcher.log_files import on_own_line, title_line
from launcher.planner.world import cpu_has_bf16, gpu_has_bf16, usable_gpus
from launcher.protocol import AGENT_SOCKET, Message, OrderReader, encode_report
from launcher.timeouts import (
    AGENT_INTERRUPT_SECONDS,
    AGENT_KILL_SECONDS,
    AGENT_POLL_SECONDS,
    HEARTBEAT_SECONDS,
    KILL_AGAIN_SECONDS,
    LAUNCHER_STOP_SECONDS,
    ORPHAN_SECONDS,
    SAVE_KILL_SECONDS,
    SAVE_SECONDS,
    SWEEP_SECONDS,
)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
NEVER = float("inf")


class Agent:
    """The agent of one node. `report_handle`: the open file for reports to the controller."""

    def __init__(self, report_handle: int) -> None:
        self._report_handle = report_handle
        self._orders = OrderReader()
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._on_input)
        self._node, self._gpus = 0, ()  # type: int, tuple[str, ...]
        self._cores = CoreAssignment(1, None, "")
        self._launcher: subprocess.Popen[bytes] | None = None
        self._launch: LaunchSpec | None = None
        self._links: RankLinks | None = None
        self._received: list[signal.Signals] = []
        self._interrupt_at = self._kill_at = self._silence = NEVER
        self._heard_at = self._reported_at = time.monotonic()
        self._stopped = self._finished = False
        self._start_error = ""

    def run(self) -> int:
        """Follow orders until everything has ended.

        Returns 0 however the ranks ended: srun kills all tasks after any other status, also ranks that still save.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        while not self._finished:
            for key, _ in self._selector.select(AGENT_POLL_SECONDS):
                key.data()
            while self._received:
                received = self._received.pop(0)
                self._stop(signal.SIGTERM if received == signal.SIGHUP else received)
            self._watch_controller()
            self._enforce_limits()
            self._watch_launcher()
        kill_children(SWEEP_SECONDS)
        status = self._launcher.returncode if self._launcher else None
        ended = self._links.ended if self._links else {}
        self._report("agent_exit", status=status, ranks=len(ended), reason=self._start_error)
        return 0

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(signal.Signals(number))

    def _report(self, kind: str, **fields: object) -> None:
        with suppress(OSError):  # the controller is gone
            report = encode_report(kind, node=self._node, host=socket.gethostname(), **fields)
            os.write(self._report_handle, report)

    # Orders

    def _on_input(self) -> None:
        piece = os.read(sys.stdin.fileno(), 1 << 16)
        self._heard_at = time.monotonic()
        if not piece:
            self._selector.unregister(sys.stdin.fileno())
            self._on_cut_off()
        for order in self._orders.feed(piece):
            self._follow(order)

    def _follow(self, order: Message) -> None:
        follow = {
            "preflight": self._preflight,
            "start": self._start,
            "signal": lambda order: self._stop(signal.Signals[order["name"]]),
            "leave": self._leave,
            "heartbeat": lambda order: None,
        }
        follow[order["kind"]](order)

    def _preflight(self, order: Message) -> None:
        """Check this machine; report what it has, or why the run cannot start on it."""
        os.environ.update(order["environment"])
        self._silence = order["silence"] or NEVER
        self._node = int(os.environ["SLURM_NODEID"]) if order["node"] is None else order["node"]
        try:
            self._gpus = () if order["cpu"] else usable_gpus(os.environ)
            self._cores = assign_cores(usable_cores(), order["ranks"] or max(1, len(self._gpus)), bool(self._gpus))
            check_machine(order, self._gpus)
            bf16 = gpu_has_bf16() if self._gpus else cpu_has_bf16()
            port = rendezvous_port(order) if self._node == 0 else None
            self._report("ready", port=port, gpus=list(self._gpus), bf16=bf16, threads=self._cores.why)
        except LaunchError as error:
            self._report("refused", reason=str(error))

    def _start(self, order: Message) -> None:
        launch = self._launch = LaunchSpec.from_fields(order["launch"])
        logs = Path(launch.logs)
        self._links = RankLinks(self._selector, logs, self._cores, self._on_rank_exit)
        try:
            logs.mkdir(parents=True, exist_ok=True)
            path = logs / f"node-{self._node}.log"
            begin = on_own_line(title_line(f"{launch.launcher} of this node"), path)
            with path.open("ab", buffering=0) as log:
                log.write(begin)
                self._launcher = self._start_launcher(launch, order["hosts"], self._links.name, log)
        except OSError as error:
            self._start_error = f"{launch.launcher} could not be started: {error}"
            self._finished = True

    def _start_launcher(
        self, launch: LaunchSpec, hosts: list[str], agent_socket: str, log: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            launcher_command(sys.executable, launch, self._node),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | self._rank_environment(hosts) | {AGENT_SOCKET: agent_socket, **SAFE_PATH},
            start_new_session=True,
            preexec_fn=signalled_at_our_exit(signal.SIGTERM),
        )

    def _rank_environment(self, hosts: list[str]) -> dict[str, str]:
        devices = {} if self._gpus else CPU_ENVIRONMENT
        threads, gloo = (
            thread_environment(self._cores, os.environ),
            interface_environment(hosts, self._node, os.environ),
        )
        return {**threads, **devices, **gloo}

    def _leave(self, order: Message) -> None:
        """End the ranks: a rank failed on another node, or, with `now`, the user pressed Ctrl-C twice."""
        if self._launcher is None:
            self._finished = True
        if order["now"]:
            self._set_limits(NEVER, 0.0)  # a rank that ended by an interrupt would count as one that has stopped
        else:
            self._set_limits(AGENT_INTERRUPT_SECONDS, AGENT_KILL_SECONDS)

    def _stop(self, number: signal.Signals) -> None:
        """Send the first signal past torchrun to the ranks: torchrun would limit their time to save, or die of it."""
        if self._launcher is None or self._links is None:
            self._finished = True
        elif not self._links.any_started:
            self._launcher.terminate()  # no rank has anything to save yet
            self._set_limits(0.0, LAUNCHER_STOP_SECONDS)
        elif not self._stopped:
            self._stopped = True
            self._links.interrupt(number)

    # Events and limits

    def _on_cut_off(self) -> None:
        self._stop(signal.SIGTERM)
        self._set_limits(NEVER, ORPHAN_SECONDS)

    def _on_rank_exit(self, rank: int, status: int) -> None:
        self._report("rank_exit", rank=rank, status=status)
        if status == STOPPED_EARLY:
            self._set_limits(SAVE_SECONDS, SAVE_KILL_SECONDS)
        elif status:
            self._set_limits(AGENT_INTERRUPT_SECONDS, AGENT_KILL_SECONDS)

    def _set_limits(self, interrupt: float, kill: float) -> None:
        """Interrupt and kill the ranks after so many seconds, or earlier if an earlier limit was set before."""
        now = time.monotonic()
        self._interrupt_at, self._kill_at = min(self._interrupt_at, now + interrupt), min(self._kill_at, now + kill)

    def _watch_controller(self) -> None:
        """Stop the ranks if the controller is silent for too long; over ssh, send it heartbeats too."""
        now = time.monotonic()
        if now - self._heard_at > self._silence:
            self._heard_at = NEVER
            self._on_cut_off()
        if self._silence < NEVER and now - self._reported_at > HEARTBEAT_SECONDS:
            self._reported_at = now
            self._report("heartbeat")

    def _enforce_limits(self) -> None:
        """Interrupt and kill the ranks when their time is over."""
        now = time.monotonic()
        if self._launcher is None or self._links is None:
            return
        if now > self._interrupt_at:
            self._interrupt_at = NEVER
            self._links.interrupt(signal.SIGTERM)
        if now > self._kill_at:
            self._kill_at = now + KILL_AGAIN_SECONDS
            self._links.kill()
            self._launcher.kill()

    def _watch_launcher(self) -> None:
        """Let torchrun see the ends of its ranks once all have ended; finish when torchrun and all ranks are gone."""
        if self._launcher is None or self._links is None or self._launch is None:
            return
        running = self._launcher.poll() is None
        if len(self._links.ended) == self._launch.ranks_per_node or not running:
            self._links.release()
        if running:
            return
        if not self._links.any_left:
            self._finished = True
        elif self._stopped:
            self._set_limits(SAVE_SECONDS, SAVE_SECONDS)  # the ranks are saving
        else:
            # torchrun itself died, and its ranks got the signal that the kernel sends at a parent's end.
            self._set_limits(AGENT_INTERRUPT_SECONDS, AGENT_KILL_SECONDS)


def main(arguments: list[str]) -> int:
    """Run an agent: `launcher.agent [HANDLE]`. Reports go to the open file HANDLE, or to standard error."""
    adopt_orphans()
    return Agent(int(arguments[0]) if arguments else sys.stderr.fileno()).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
