"""Runs blocks of trainings at once, or beside a busy loop, and counts what other processes of the machine use.

A block lasts a fixed time, so trainings that start a block together also end it together.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ftsys.bench.harness.rounds import Figures, Worker
from ftsys.console.child_python import python_command

_LOOP = """
import os, sys
os.sched_setaffinity(0, map(int, sys.argv[1:]))
parent = os.getppid()
while os.getppid() == parent:
    pass
"""
"""Ends with its parent, so that nothing keeps a core busy after an aborted benchmark."""


class Together:
    """Runs a block of one or more trainings at once. `loop_on`: CPUs of a busy loop beside them, empty for none."""

    def __init__(self, workers: Sequence[Worker], loop_on: Sequence[int] = ()) -> None:
        self._workers, self._loop_on = workers, loop_on

    def block(self) -> Figures:
        """Run one block.

        Returns "seconds", "rate" (real tokens per second of all trainings together), "each" (of each), "cpus"
        (that the trainings kept busy), and "others" (that other processes kept busy, the busy loop not counted).
        """
        with _busy_loop(self._loop_on) as loop:
            busy, start = machine_seconds(), time.perf_counter()
            for worker in self._workers:
                worker.send()
            found = [worker.receive() for worker in self._workers]
            seconds = time.perf_counter() - start
            own = sum(figures["cpu_seconds"] for figures in found) + (process_seconds(loop.pid) if loop else 0.0)
            others = max(0.0, machine_seconds() - busy - own) / seconds
        each = [figures["tokens"] / figures["seconds"] for figures in found]
        cpu = sum(figures["cpu_seconds"] / figures["seconds"] for figures in found)
        return {"seconds": seconds, "rate": sum(each), "each": each, "cpus": cpu, "others": others}


@contextmanager
def _busy_loop(cpus: Sequence[int]) -> Iterator["subprocess.Popen[bytes] | None"]:
    """Keep one core of `cpus` busy, whichever the scheduler chooses."""
    if not cpus:
        yield None
        return
    with subprocess.Popen(python_command("-c", _LOOP, *map(str, cpus))) as loop:
        try:
            yield loop
        finally:
            loop.kill()


def machine_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Return the CPU seconds that all processes of the machine have used since its start."""
    user, nice, system, _, _, irq, soft_irq = (int(word) for word in stat.read_text().split()[1:8])
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
