"""Ends a process together with the one that started it, however that ends. Only Linux tells a process of it."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_SET_PARENT_DEATH_SIGNAL = 1
"""Number of the operation of prctl(2)."""


def signal_at_parent_exit(number: signal.Signals, parent: int) -> None:
    """Have the kernel send this process a signal when its parent ends, for any reason. Survives `exec`, not `fork`.

    `parent` is the id of the process that started this one. If that has ended already, the signal is sent at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def signalled_at_our_exit(number: signal.Signals) -> Callable[[], None]:
    """Return the `preexec_fn` of a child that gets a signal when this process ends. Call it in the main thread."""
    parent = os.getpid()

    def prepare() -> None:
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)  # our own handler would swallow the signal until the child's `exec`
        signal_at_parent_exit(number, parent)

    return prepare
