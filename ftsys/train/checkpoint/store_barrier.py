"""Makes ranks wait for each other in background threads, through the process group's key-value store.

Collectives cannot be used there: they would mix with those of the training.
"""

import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from torch.distributed.distributed_c10d import _get_default_store

from ftsys.distributed import rank, world_size
from ftsys.errors import FtsysError

Value = TypeVar("Value")
TIMEOUT = timedelta(days=1)
"""How long a rank waits for another: as long as a disk may take. The watchdog finds a rank that is dead."""


class StoreBarrier:
    """A barrier over the store that the process group was made with, through a connection of its own."""

    def __init__(self) -> None:
        """Connect to the store. Every rank that takes part makes one, at any time."""
        self._store: Any = None
        if world_size() > 1:
            self._store = _get_default_store().clone()  # torch has no public name for it
            self._store.set_timeout(TIMEOUT)

    def run(self, name: str, work: Callable[[], Value], conclude: Callable[[list[Value]], object]) -> None:
        """Run `work` on every rank, then `conclude` on rank 0 with its results by rank; returns once that is done.

        `name` must be new, and the same on every rank. An exception of either is raised on every rank: itself where it
        was raised, as an FtsysError elsewhere.
        """
        value, error = _attempt(work)
        if rank() > 0:
            self._write(f"{name}/{rank()}", (value, _for_other_ranks(error)))
            error = error or self._read(name)
        else:
            others = [self._read(f"{name}/{number}") for number in range(1, world_size())]
            error = error or next((theirs for _, theirs in others if theirs is not None), None)
            if error is None:
                _, error = _attempt(lambda: conclude([value, *(found for found, _ in others)]))
            self._write(name, _for_other_ranks(error))
            self._delete([f"{name}/{number}" for number in range(1, world_size())])
        if error is not None:
            raise error

    def _write(self, key: str, value: Any) -> None:
        if self._store is not None:
            self._store.set(key, pickle.dumps(value))

    def _read(self, key: str) -> Any:
        return pickle.loads(self._store.get(key))

    def _delete(self, keys: list[str]) -> None:
        for key in keys:
            self._store.delete_key(key)


def _attempt(work: Callable[[], Value]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001  # raised by the caller, once the other ranks know of it
        return None, error


def _for_other_ranks(error: Exception | None) -> FtsysError | None:
    """Return the error that other ranks raise: an FtsysError itself, any other as text."""
    if error is None or isinstance(error, FtsysError):
        return error
    return FtsysError(f"rank {rank()} failed: {type(error).__name__}: {error}")
