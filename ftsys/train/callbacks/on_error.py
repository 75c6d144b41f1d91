"""Passes an error of rank 0 to a handler, so that the other ranks learn of it before rank 0 exits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ftsys.errors import FtsysError

OnError = Callable[[FtsysError], None]
"""Called with an error that only rank 0 has, instead of raising it: the other ranks must learn of it first."""


@contextmanager
def handed_on(on_error: OnError | None) -> Iterator[None]:
    """Pass an FtsysError of the block to `on_error`; raise it if there is no handler."""
    try:
        yield
    except FtsysError as error:
        if on_error is None:
            raise
        on_error(error)
