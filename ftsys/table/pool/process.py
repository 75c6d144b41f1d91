"""Starts the process of a cell, and ends all of them together."""

import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from ftsys.config import dump_toml
from ftsys.console.child_python import python_command
from ftsys.files.atomic import atomic_write_text
from ftsys.files.storage_errors import storage_errors
from ftsys.table.cells import CELL_FILE, Cell
from ftsys.table.pool.slots import Slot, cell_environment
from ftsys.table.state import LOG

STOP_SECONDS = 60.0
"""Time for runs to save after they were told to stop; then they are killed."""
_POLL_SECONDS = 0.05


class Process(Protocol):
    """The part of `subprocess.Popen` that a pool uses."""

    def poll(self) -> int | None:
        """Return the exit status, minus the number of the signal that ended it; None while it runs."""

    def terminate(self) -> None:
        """Ask it to save and end."""

    def kill(self) -> None:
        """End it at once."""


def open_cell(cell: Cell) -> tuple[Path, IO[bytes]]:
    """Write the cell's run file; returns its path, and the log to append to. Raises StorageError."""
    path, log = cell.folder / CELL_FILE, cell.folder / LOG
    atomic_write_text(path, dump_toml(cell.run))
    with storage_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        return path, log.open("ab")


def start_cell(cell: Cell, slot: Slot) -> Process:
    """Start the training of a cell in a slot. Raises StorageError."""
    path, stream = open_cell(cell)
    with stream:
        process = subprocess.Popen(
            python_command("-m", "ftsys.table.pool.child", str(os.getpid()), str(path)),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=cell_environment(slot),
            start_new_session=True,  # Ctrl-C reaches this process only, which passes it on once
        )
    if slot.cpus is not None:
        with suppress(OSError):  # it has ended already, or the CPUs were taken away: the run works unbound
            os.sched_setaffinity(process.pid, slot.cpus)
    return process


def stop_all(processes: Iterable[Process]) -> None:
    """Tell processes to save and end, wait for STOP_SECONDS, and kill those that are left."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for process in processes:
        if process.poll() is None:
            process.kill()
