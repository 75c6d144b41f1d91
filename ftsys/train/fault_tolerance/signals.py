"""Signals that end a run early, from its first moment on: nothing here needs torch, which takes seconds to import."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ftsys.errors import STOPPED_EARLY, StoppedEarly

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

PATIENCE_SECONDS = 5.0
"""What the main thread has to leave after a signal that nobody defers, before the process is ended over its head."""


class Interruption:
    """Remembers a signal. While `deferred` is set somebody asks for it; else it raises StoppedEarly at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.wanted = False
        """Whether this rank was told to stop, by a signal of its own or by another rank that had one."""
        self.deferred = False
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle SIGNALS inside the block, the first of them only: a terminal and a launcher may both send one."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        former_end = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        threading.Thread(target=self._insist, args=(read_end,), name="ftsys-signals", daemon=True).start()
        former = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            self._over.set()
            for number, handler in former.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(former_end)
            os.close(write_end)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first = self.received is None
        self.received, self.wanted = self.received or signal.Signals(number), True
        if first and not self.deferred:
            raise self.error()

    def _insist(self, read_end: int) -> None:
        """A thread of its own: the handler does not run while the main thread waits in a library's own code.

        A rendezvous that never comes about is such a wait. Nothing is half written then: training defers its signals.
        """
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            while byte := pipe.read(1):
                if byte[0] in SIGNALS and not self._over.wait(PATIENCE_SECONDS) and not self.deferred:
                    self.received, self.wanted = self.received or signal.Signals(byte[0]), True
                    with contextlib.suppress(OSError, ValueError):  # a closed terminal or pipe
                        print(f"error: {self.error()}", file=sys.stderr, flush=True)
                    os._exit(STOPPED_EARLY)

    def error(self) -> StoppedEarly:
        """What the run ends with."""
        by = f"by {self.received.name}" if self.received else "by a signal to another rank"
        return StoppedEarly(f"stopped {by}; everything on disk is complete: start the same command again to go on.")
