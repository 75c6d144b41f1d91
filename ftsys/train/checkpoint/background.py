"""Runs a save in a background thread while training goes on: one at a time, and no error is lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psutil

from ftsys.errors import FtsysError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ftsys.train.checkpoint.training_state import FullState

SPARE = 2
"""A save that holds n bytes runs in the background where SPARE x n are free; else training waits for it."""


class BackgroundSaver:
    """A thread for one save; `wait` joins it, and raises what it raised."""

    def __init__(self, on_error: Callable[[FtsysError], object]) -> None:
        """`on_error` is called with an FtsysError at once, in the thread, because `wait` may come much later."""
        self._on_error = on_error
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], object], in_background: bool = True) -> None:
        """Begin `work`; `wait` must have ended the one before. The interpreter does not exit before it is done.

        Returns at once, or with `in_background` False when the work is done; either way `wait` raises its error.
        """
        assert self._thread is None, "wait() comes first"
        self._thread = threading.Thread(target=self._run, args=(work,), name="ftsys-save")
        self._thread.start()
        if not in_background:
            self._thread.join()

    def wait(self) -> None:
        """Return once no save is under way. Raises the error of the work, once."""
        if self._thread is not None:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # nobody sees what a thread raises: `wait` raises it again
            self._error = error
            if isinstance(error, FtsysError):
                self._on_error(error)


def bytes_of(state: FullState) -> int:
    """Return the bytes of all tensors of a state."""
    tensors = [*state.weights.values(), *state.buffers.values()]
    tensors += [tensor for moments in state.moments.values() for tensor in moments.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def fits_in_memory(size: int) -> bool:
    """Return True where `size` bytes may be held while training goes on."""
    return psutil.virtual_memory().available > SPARE * size
