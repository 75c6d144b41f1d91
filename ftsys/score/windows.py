"""Cuts a stream of rows into windows, and prepares some windows in the background while another one is computed.

A window depends on the rows alone, not on ranks or on what was done before: so its batches, and every rounding in them,
are the same at each start and on any number of ranks.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")
ROWS = {"cpu": 4_096, "cuda": 16_384}
"""Rows of a window, by the type of device."""
CHARACTERS = 8 << 20
"""A window ends after the row that reaches this number of characters of text, which bounds its memory."""


class Place(NamedTuple):
    """The file and the line of a row."""

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


@dataclass
class Window:
    """Consecutive rows: their texts, what is carried over, and the rows between them that cannot be used."""

    index: int
    texts: list[tuple[str, ...]] = field(default_factory=list)
    carried: list[tuple[Any, ...]] = field(default_factory=list)
    faults: list[tuple[Place, str]] = field(default_factory=list)
    prepared: Any = None
    """The result of the background for these rows; None if nothing is to be computed."""

    @property
    def columns(self) -> tuple[list[str], list[str] | None]:
        """The first texts, and the second ones or None."""
        first = [texts[0] for texts in self.texts]
        return first, [texts[1] for texts in self.texts] if self.texts and len(self.texts[0]) > 1 else None


class Entry(NamedTuple):
    """A row of the stream, or its fault."""

    place: Place
    texts: tuple[str, ...]
    carried: tuple[Any, ...]
    fault: str = ""


def windows(entries: Iterable[Entry], rows: int) -> Iterator[Window]:
    """Cut entries into windows of at most `rows` rows and about CHARACTERS characters. Faults end a window as well."""
    window, characters = Window(0), 0
    for entry in entries:
        if entry.fault:
            window.faults.append((entry.place, entry.fault))
        else:
            window.texts.append(entry.texts)
            window.carried.append(entry.carried)
            characters += sum(map(len, entry.texts))
        if max(len(window.texts), len(window.faults)) >= rows or characters >= CHARACTERS:
            yield window
            window, characters = Window(window.index + 1), 0
    if window.texts or window.faults:
        yield window


def prepared_ahead(items: Iterator[Item], prepare: Callable[[Item], Any], depth: int = 2) -> Iterator[Item]:
    """Yield items in order, each after `prepare` of it; up to `depth` more are made in a thread meanwhile.

    The thread also draws the items. Its errors are raised here, after the items before them.
    """

    def one() -> Item | None:
        item = next(items, None)
        if item is not None:
            prepare(item)
        return item

    with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
        ahead: deque[Future[Item | None]] = deque(pool.submit(one) for _ in range(depth))
        try:
            while (item := ahead.popleft().result()) is not None:
                ahead.append(pool.submit(one))
                yield item
        finally:
            for future in ahead:
                future.cancel()
