"""Signals that end a run early, from its first moment on: nothing here needs torch, which takes seconds to import."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ftsys.errors import StoppedEarly

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interruption:
    """Remembers a signal. While `deferred` is set somebody asks for it; else it raises StoppedEarly at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.deferred = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle SIGNALS inside the block, the first of them only: a terminal and a launcher may both send one."""
        former = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first = self.received is None
        self.received = self.received or signal.Signals(number)
        if first and not self.deferred:
            raise self.error()

    def error(self) -> StoppedEarly:
        """What the run ends with."""
        by = f"by {self.received.name}" if self.received else "by a signal to another rank"
        return StoppedEarly(f"stopped {by}; everything on disk is complete: start the same command again to go on.")
