"""Makes a process take its children along when it ends, by calls that only Linux has."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from launcher.timeouts import KILL_POLL_SECONDS

_SET_CHILD_SUBREAPER = 36
"""Number of the operation of prctl(2)."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)


def kill_children(seconds: float) -> None:
    """Kill all children of this process, and theirs once they become ours (see `adopt_orphans`), until none is left.

    Gives up after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while (children := list(_children())) and time.monotonic() < deadline:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(KILL_POLL_SECONDS)


def _children() -> Iterator[int]:
    own = os.getpid()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The command's name in parentheses may contain anything; state and parent follow it.
            if int(path.read_text().rpartition(")")[2].split()[1]) == own:
                yield int(path.parent.name)


def kill_group(group: int) -> None:
    """Kill the rest of a process group that a child of ours leads."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
