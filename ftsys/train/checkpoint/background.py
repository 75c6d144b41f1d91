"""Work that a rank does while training goes on: one piece at a time, and no error of it is lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psutil

from ftsys.errors import FtsysError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ftsys.train.checkpoint.training_state import FullState

SPARE = 2
"""Work that holds n bytes runs beside the training where at least SPARE x n are free; else training waits for it."""


class Beside:
    """A thread for one piece of work; `wait` ends it, and raises what it raised."""

    def __init__(self, on_error: Callable[[FtsysError], None]) -> None:
        """`on_error` hears of an error of this project's own at once, in the thread, for `wait` may be far off."""
        self._on_error = on_error
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], object], beside: bool = True) -> None:
        """Begin `work`; the former piece must have been waited for. The interpreter does not end before it has.

        Returns at once, or with `beside` False when the work is done; what it raised is for `wait` in both cases.
        """
        assert self._thread is None, "wait() comes first"
        self._thread = threading.Thread(target=self._run, args=(work,), name="ftsys-save")
        self._thread.start()
        if not beside:
            self._thread.join()

    def wait(self) -> None:
        """Return once nothing is under way. Raises what the work raised, once."""
        if self._thread is not None:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # nobody hears a thread raise: `wait` does it for this one
            self._error = error
            if isinstance(error, FtsysError):
                self._on_error(error)


def bytes_of(state: FullState) -> int:
    """Bytes of all tensors of a state."""
    tensors = [*state.weights.values(), *state.buffers.values()]
    tensors += [tensor for moments in state.moments.values() for tensor in moments.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def fits_beside(size: int) -> bool:
    """Whether `size` bytes may be kept while training goes on."""
    return psutil.virtual_memory().available > SPARE * size
