"""`ftlaunch`'s part on each node: `python -m launcher.agent` starts torchrun there and answers for its ranks.

Orders come on standard input. When that ends, whoever gave them has died or is cut off: the ranks are stopped and this
process ends, so that nothing stays behind on a far machine. It starts without torch, in some hundredths of a second.
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

from ftsys.errors import LaunchError
from launcher.agent.process_tree import adopt_orphans, die_with_parent, kill_children
from launcher.agent.rank_links import RankLinks
from launcher.command_lines import Start, node_command
from launcher.host.cpu_affinity import Share, share_cores, thread_environment, usable_cores
from launcher.host.network_interface import interface_towards
from launcher.host.preflight import check_machine, port_to_meet_at
from launcher.planner.world import cpu_has_bf16, gpu_has_bf16, usable_gpus
from launcher.protocol import AGENT, Message, Orders, word
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

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Node:
    """The agent of one node. `words_handle`: where words to `ftlaunch` go."""

    def __init__(self, words_handle: int) -> None:
        self._words_handle = words_handle
        self._orders = Orders()
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._on_input)
        self._node, self._gpus = 0, ()  # type: int, tuple[str, ...]
        self._share = Share(1, None, "")
        self._launcher: subprocess.Popen[bytes] | None = None
        self._start: Start | None = None
        self._links: RankLinks | None = None
        self._received: list[signal.Signals] = []
        self._interrupt_at = self._kill_at = float("inf")
        self._silence = float("inf")
        self._heard_at = self._spoke_at = time.monotonic()
        self._stopped = self._over = False
        self._trouble = ""

    def run(self) -> int:
        """Obey until everything has ended; returns 0, however that was: srun kills all the nodes for any other status,
        where some may still be saving.
        """
        for number in STOPS:
            signal.signal(number, self._on_signal)
        while not self._over:
            for key, _ in self._selector.select(AGENT_POLL_SECONDS):
                key.data()
            while self._received:
                received = self._received.pop(0)
                self._stop(signal.SIGTERM if received == signal.SIGHUP else received)
            self._look()
        kill_children(SWEEP_SECONDS)
        status = self._launcher.returncode if self._launcher else None
        ended = self._links.ended if self._links else {}
        self._say(kind="gone", status=status, ranks=len(ended), reason=self._trouble)
        return 0

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(signal.Signals(number))

    def _say(self, **fields: object) -> None:
        with suppress(OSError):  # nobody listens any more
            os.write(self._words_handle, word(node=self._node, host=socket.gethostname(), **fields))

    # Orders

    def _on_input(self) -> None:
        piece = os.read(sys.stdin.fileno(), 1 << 16)
        self._heard_at = time.monotonic()
        if not piece:
            self._selector.unregister(sys.stdin.fileno())
            self._cut_off()
        for order in self._orders.feed(piece):
            self._obey(order)

    def _obey(self, order: Message) -> None:
        obey = {
            "prepare": self._prepare,
            "start": self._begin,
            "signal": lambda order: self._stop(signal.Signals[order["name"]]),
            "leave": self._on_leave,
            "beat": lambda order: None,
        }
        obey[order["do"]](order)

    def _prepare(self, order: Message) -> None:
        """Look at this machine and say what it has, or why the run cannot be started on it."""
        os.environ.update(order["environment"])
        self._silence = order["silence"] or float("inf")
        self._node = int(os.environ["SLURM_NODEID"]) if order["node"] is None else order["node"]
        try:
            self._gpus = () if order["cpu"] else usable_gpus(os.environ)
            self._share = share_cores(usable_cores(), order["ranks"] or max(1, len(self._gpus)), bool(self._gpus))
            check_machine(order, len(self._gpus))
            bf16 = gpu_has_bf16() if self._gpus else cpu_has_bf16()
            port = port_to_meet_at(order) if self._node == 0 else None
            self._say(kind="ready", port=port, gpus=list(self._gpus), bf16=bf16, threads=self._share.why)
        except LaunchError as error:
            self._say(kind="refused", reason=str(error))

    def _begin(self, order: Message) -> None:
        start = self._start = Start.from_fields(order["start"])
        logs = Path(start.logs)
        self._links = RankLinks(self._selector, logs, self._share, self._on_rank_end)
        try:
            logs.mkdir(parents=True, exist_ok=True)
            with (logs / f"node-{self._node}.log").open("ab", buffering=0) as log:
                log.write(f"---- {_now()} {socket.gethostname()}: {start.launcher} of this node\n".encode())
                self._launcher = self._launched(start, self._rank_environment(order["peers"]), log)
        except OSError as error:
            self._trouble = f"{start.launcher} could not be started: {error}"
            self._over = True

    def _launched(self, start: Start, environment: dict[str, str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
        assert self._links is not None, "made just before"
        return subprocess.Popen(
            node_command(sys.executable, start, self._node),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | environment | {AGENT: self._links.name},
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )

    def _rank_environment(self, peers: list[str]) -> dict[str, str]:
        added = thread_environment(self._share, os.environ)
        if not self._gpus:
            added |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
        if len(peers) > 1 and "GLOO_SOCKET_IFNAME" not in os.environ:
            name = interface_towards(peers[1] if self._node == 0 else peers[0])
            added |= {"GLOO_SOCKET_IFNAME": name} if name else {}
        return added

    def _on_leave(self, order: Message) -> None:
        """A rank failed elsewhere, or `ftlaunch` was told twice to end."""
        if self._launcher is None:
            self._over = True
        self._count_down(0.0 if order["now"] else AGENT_INTERRUPT_SECONDS, 0.0 if order["now"] else AGENT_KILL_SECONDS)

    def _stop(self, number: signal.Signals) -> None:
        """Hand the first signal to the ranks, past torchrun: it would bound their time to save, and dies of others."""
        if self._launcher is None or self._links is None:
            self._over = True
        elif not self._links.begun:
            self._launcher.terminate()  # nobody has anything to save yet
            self._count_down(0.0, LAUNCHER_STOP_SECONDS)
        elif not self._stopped:
            self._stopped = True
            self._links.interrupt(number)

    def _cut_off(self) -> None:
        self._stop(signal.SIGTERM)
        self._count_down(float("inf"), ORPHAN_SECONDS)

    # What happens

    def _on_rank_end(self, rank: int, status: int) -> None:
        self._say(kind="ended", rank=rank, status=status)
        if status == 75:
            self._count_down(SAVE_SECONDS, SAVE_KILL_SECONDS)
        elif status:
            self._count_down(AGENT_INTERRUPT_SECONDS, AGENT_KILL_SECONDS)

    def _count_down(self, interrupt: float, kill: float) -> None:
        """Have the ranks interrupted and killed in so many seconds, or earlier if that was settled before."""
        now = time.monotonic()
        self._interrupt_at, self._kill_at = min(self._interrupt_at, now + interrupt), min(self._kill_at, now + kill)

    def _look(self) -> None:
        """Do what time has come for, and notice the end."""
        now = time.monotonic()
        if now - self._heard_at > self._silence:
            self._heard_at = float("inf")
            self._cut_off()
        if self._silence < float("inf") and now - self._spoke_at > HEARTBEAT_SECONDS:
            self._spoke_at = now
            self._say(kind="beat")
        if self._launcher is None or self._links is None or self._start is None:
            return
        running = self._launcher.poll() is None
        if now > self._interrupt_at:
            self._interrupt_at = float("inf")
            self._links.interrupt(signal.SIGTERM)
        if now > self._kill_at:
            self._kill_at = now + KILL_AGAIN_SECONDS
            self._links.kill()
            self._launcher.kill()
        if len(self._links.ended) == self._start.ranks_per_node or not running:
            self._links.release()
        if not running:
            if self._links.alive and self._stopped:
                self._count_down(SAVE_SECONDS, SAVE_SECONDS)  # they are saving
            elif self._links.alive:
                self._count_down(
                    AGENT_INTERRUPT_SECONDS, AGENT_KILL_SECONDS
                )  # torchrun itself died, and its ranks were told to stop
            else:
                self._over = True


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def main(words: list[str]) -> int:
    """`launcher.agent [HANDLE]`: words go to the open file HANDLE, or to standard error."""
    adopt_orphans()
    return Node(int(words[0]) if words else sys.stderr.fileno()).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
