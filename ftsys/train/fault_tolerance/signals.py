"""Handles the signals that end a run early.

It imports no torch, which takes seconds to import, so signals are handled from the start of the process.
"""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ftsys.console.parent_exit import signal_at_parent_exit
from ftsys.console.printer import complain
from ftsys.errors import STOPPED_EARLY, StoppedEarly
from ftsys.ranks import has_launcher, has_other_ranks

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Signals that end a run early. A closed terminal sends HUP."""

PATIENCE_SECONDS = 5.0
"""Seconds that the main thread has to exit after a signal that is not deferred; then the process is ended."""


def stop_with_launcher(environ: Mapping[str, str]) -> None:
    """Have this rank get SIGTERM when torchrun or the deepspeed launcher is killed, also if it has been by now.

    Else the ranks would train on, and wait for ever at the next save: their key-value store was in torchrun. `ftlaunch`
    has its own wrapper around each rank, which sets FTSYS_OWN_LOG. Any other parent, such as a shell, may end early.
    """
    if has_launcher(environ) and "FTSYS_OWN_LOG" not in environ:
        signal_at_parent_exit(signal.SIGTERM, _launcher())


def _launcher() -> int:
    """Return the process id of this rank's launcher, 0 if it has ended: then init is the parent.

    In a container the launcher, a Python program, may itself be process 1. If only this rank is in the container, init
    may be its parent from the start; then the session is init's, or one outside, whose number is 0 here.
    """
    parent = os.getppid()
    try:
        program = Path(f"/proc/{parent}/exe").readlink().name
    except OSError:  # another user's
        program = ""
    orphaned = parent == 1 and os.getsid(0) > 1 and "python" not in program
    return 0 if orphaned else parent


def _is_ignored(number: signal.Signals) -> bool:
    """Return True for a signal that the program was started to ignore: HUP by `nohup`."""
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


class Interruption:
    """Stores a received signal.

    While `deferred` is True, whoever set it polls `wanted` or calls `end_deferral`. Otherwise the handler raises
    StoppedEarly at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.wanted = False
        """True once this rank was told to stop, by its own signal or by another rank that received one."""
        self.deferred = False
        self.ranks_met = not has_other_ranks()
        """False until this rank would notice the death of another one by itself."""
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle SIGNALS inside the block. Only the first one acts: a terminal and a launcher may both send one."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        former_end = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        threading.Thread(target=self._insist, args=(read_end,), name="ftsys-signals", daemon=True).start()
        former = {number: signal.signal(number, self._receive) for number in SIGNALS if not _is_ignored(number)}
        try:
            yield
        finally:
            self._over.set()
            for number, handler in former.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(former_end)
            os.close(write_end)

    def end_deferral(self) -> None:
        """Handle signals at once from now on. Raises StoppedEarly if one came while they were deferred."""
        self.deferred = False
        if self.wanted:
            raise self.error()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first = self.received is None
        self.received, self.wanted = self.received or signal.Signals(number), True
        if first and not self.deferred:
            raise self.error()

    def _insist(self, read_end: int) -> None:
        """End the process if the main thread has not exited PATIENCE_SECONDS after a signal.

        This runs in its own thread, because Python runs no signal handler while the main thread waits in native code,
        for instance in a rendezvous that never completes. No file is half written then: training defers its signals.
        """
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            while byte := pipe.read(1):
                if byte[0] in SIGNALS and not self._over.wait(PATIENCE_SECONDS) and not self.deferred:
                    self.received, self.wanted = self.received or signal.Signals(byte[0]), True
                    complain(self.error())
                    os._exit(STOPPED_EARLY)

    def error(self) -> StoppedEarly:
        """Return the error that the run ends with."""
        by = f"by {self.received.name}" if self.received else "by a signal to another rank"
        told = f"stopped {by}; everything on disk is complete: start the same command again to resume."
        if self.received is signal.SIGTERM and not self.ranks_met:  # a launcher also ends the others when a rank dies
            told += " If nobody stopped it, another rank died in its start-up: that rank's own output shows why."
        return StoppedEarly(told)
