"""What ranks agree on from threads beside the training, whose own collectives must not be waited for or mixed with."""

import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from torch.distributed.distributed_c10d import _get_default_store

from ftsys.distributed import rank, world_size
from ftsys.errors import FtsysError

Value = TypeVar("Value")
PATIENCE = timedelta(days=1)
"""How long a rank waits for another's note: as long as a disk may take. That a rank is dead, the watchdog finds out."""


class Board:
    """Notes in the store that the process group was made with, over a connection of this board's own."""

    def __init__(self) -> None:
        """Every rank that takes part makes one, at any time."""
        self._store: Any = None
        if world_size() > 1:
            self._store = _get_default_store().clone()  # torch has no public name for it
            self._store.set_timeout(PATIENCE)

    def done_by_all(self, name: str, work: Callable[[], Value], conclude: Callable[[list[Value]], object]) -> None:
        """`work` on every rank, then on rank 0 `conclude` with what it returned on each; returns once that is done.

        `name` must be new, and the same on every rank. Raises on every rank what either raised on any: the exception
        itself where it was raised, an FtsysError elsewhere.
        """
        value, failed = _attempt(work)
        if rank() > 0:
            self._write(f"{name}/{rank()}", (value, _told(failed)))
            failed = failed or self._read(name)
        else:
            others = [self._read(f"{name}/{number}") for number in range(1, world_size())]
            failed = failed or next((error for _, error in others if error is not None), None)
            if failed is None:
                _, failed = _attempt(lambda: conclude([value, *(word for word, _ in others)]))
            self._write(name, _told(failed))
            self._forget([f"{name}/{number}" for number in range(1, world_size())])
        if failed is not None:
            raise failed

    def _write(self, key: str, word: Any) -> None:
        if self._store is not None:
            self._store.set(key, pickle.dumps(word))

    def _read(self, key: str) -> Any:
        return pickle.loads(self._store.get(key))

    def _forget(self, keys: list[str]) -> None:
        for key in keys:
            self._store.delete_key(key)


def _attempt(work: Callable[[], Value]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001  # raised by the caller, once the other ranks know of it
        return None, error


def _told(error: Exception | None) -> FtsysError | None:
    """An error as other ranks hear of it."""
    if error is None or isinstance(error, FtsysError):
        return error
    return FtsysError(f"rank {rank()} failed: {type(error).__name__}: {error}")
