"""Hands an error of rank 0 to a handler, so that the other ranks hear of it before rank 0 leaves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ftsys.errors import FtsysError

OnError = Callable[[FtsysError], None]
"""Told of an error of rank 0 alone, instead of raising it: the other ranks must hear of it before rank 0 leaves."""


@contextmanager
def handed_on(on_error: OnError | None) -> Iterator[None]:
    try:
        yield
    except FtsysError as error:
        if on_error is None:
            raise
        on_error(error)
