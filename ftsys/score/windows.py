"""Cuts a stream of rows into windows, and prepares some windows in the background while another one is computed.

A window depends on the rows alone, not on ranks or on what was done before: so its batches, and every rounding in them,
are the same at each start and on any number of ranks.
"""

import hashlib
import json
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


class Entry(NamedTuple):
    """A row of the stream, or its fault."""

    place: Place
    texts: tuple[str, ...]
    carried: tuple[Any, ...]
    fault: str = ""


@dataclass
class Window:
    """Consecutive entries: rows, and between them those that cannot be used."""

    index: int
    entries: list[Entry] = field(default_factory=list)
    prepared: Any = None
    """The result of the background for the rows; None if nothing is to be computed."""

    @property
    def rows(self) -> list[Entry]:
        """The entries that are no faults."""
        return [entry for entry in self.entries if not entry.fault]

    @property
    def faults(self) -> list[tuple[Place, str]]:
        """The places of the others, with the reasons."""
        return [(entry.place, entry.fault) for entry in self.entries if entry.fault]

    @property
    def columns(self) -> tuple[list[str], list[str] | None]:
        """The first texts of the rows, and the second ones or None."""
        texts = [entry.texts for entry in self.rows]
        return [each[0] for each in texts], [each[1] for each in texts] if texts and len(texts[0]) > 1 else None

    def digest(self) -> str:
        """Return the sha256 of all entries, whose values have to be JSON's."""
        return hashlib.sha256(json.dumps(self.entries).encode()).hexdigest()

    def leave_out(self, rows: Iterable[int], reason: str) -> None:
        """Make faults of rows, which are named by their indices in `rows`."""
        usable = [at for at, entry in enumerate(self.entries) if not entry.fault]
        for row in rows:
            self.entries[usable[row]] = Entry(self.entries[usable[row]].place, (), (), reason)


def windows(entries: Iterable[Entry], rows: int) -> Iterator[Window]:
    """Cut entries into windows of at most `rows` rows and about CHARACTERS characters. Faults end a window as well."""
    window, counts, characters = Window(0), [0, 0], 0
    for entry in entries:
        window.entries.append(entry)
        counts[bool(entry.fault)] += 1
        characters += sum(map(len, entry.texts))
        if max(counts) >= rows or characters >= CHARACTERS:
            yield window
            window, counts, characters = Window(window.index + 1), [0, 0], 0
    if window.entries:
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
