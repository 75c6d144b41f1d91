"""Makes ranks wait for each other in background threads, through the process group's key-value store.

Collectives cannot be used there: they would mix with those of the training. Values are JSON, because the store has no
authentication: whatever another process writes there is data, and never code.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from torch.distributed import DistNetworkError
from torch.distributed.distributed_c10d import _get_default_store

from ftsys.distributed import rank, world_size
from ftsys.errors import FtsysError, error_as_words, error_from_words
from ftsys.files.untrusted import parse_json, typed

Value = TypeVar("Value")
TIMEOUT = timedelta(days=1)
"""How long a rank waits for another: as long as a disk may take. The watchdog finds a rank that is dead."""


class StoreBarrier:
    """A barrier over the store that the process group was made with, through a connection of its own."""

    def __init__(self) -> None:
        """Connect to the store. Every rank that takes part makes one, at any time."""
        self._store: Any = None
        self._concluded: list[str] = []
        """Rank 0's key of the barrier before this one: some ranks have not read it yet."""
        if world_size() > 1:
            self._store = _get_default_store().clone()  # torch has no public name for it
            self._store.set_timeout(TIMEOUT)

    def run(self, name: str, work: Callable[[], Value], conclude: Callable[[list[Value]], object]) -> None:
        """Run `work` on every rank, then `conclude` on rank 0 with its results by rank; returns once that is done.

        `name` must be new, and the same on every rank; results are JSON values. An exception of either is raised on
        every rank: itself where it was raised, as an FtsysError elsewhere.
        """
        value, error = _attempt(work)
        if rank() > 0:
            self._write(f"{name}/{rank()}", value, error)
            error = error or self._read(name)[1]
        else:
            others, unread = _attempt(lambda: self._read_others(name))
            error = error or unread or next((theirs for _, theirs in others if theirs is not None), None)
            if error is None:
                _, error = _attempt(lambda: conclude([value, *(found for found, _ in others)]))
            self._write(name, None, error)
        if error is not None:
            raise error

    def _write(self, key: str, value: Any, error: Exception | None) -> None:
        if self._store is not None:
            with _lost_store():
                self._store.set(key, json.dumps([value, _error_as_words(error)]))

    def _read(self, key: str) -> tuple[Any, FtsysError | None]:
        """Return the value and the error of the rank that wrote `key`. Raises FtsysError for anything else."""
        with _lost_store():
            text = self._store.get(key)
        try:
            value, failed = typed(list[Any], parse_json(text))
            if failed is None:
                return value, None
            name, message = typed(list[str], failed)
            return value, error_from_words(name, message)
        except ValueError as error:
            raise FtsysError(f"the process group's store holds no message of a rank at {key!r}: {error}") from error

    def _read_others(self, name: str) -> list[tuple[Any, FtsysError | None]]:
        """Return what the other ranks wrote. Since they have come here, no key that was there before is read again."""
        keys = [f"{name}/{number}" for number in range(1, world_size())]
        found = [self._read(key) for key in keys]
        for key in (*keys, *self._concluded):
            with _lost_store():
                self._store.delete_key(key)
        self._concluded = [name] if keys else []
        return found


@contextmanager
def _lost_store() -> Iterator[None]:
    """Raise FtsysError in place of the connection's error: the server of the store is gone."""
    try:
        yield
    except DistNetworkError as error:
        raise FtsysError(
            f"the ranks' key-value store is gone ({error}): the launcher that served it, such as torchrun, was ended. "
            "The checkpoint was not written; start the same command again to go on from the one before."
        ) from error


def _attempt(work: Callable[[], Value]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001  # raised by the caller, once the other ranks know of it
        return None, error


def _error_as_words(error: Exception | None) -> list[str] | None:
    """Return the class name and the message that other ranks raise: an FtsysError's own, or those of an FtsysError."""
    if error is None:
        return None
    if not isinstance(error, FtsysError):
        error = FtsysError(f"rank {rank()} failed: {type(error).__name__}: {error}")
    return error_as_words(error)
