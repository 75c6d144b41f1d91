"""Defines the parts of a page: sections with notes, tables, figures and lists of examples. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Value = str | int | float | None


@dataclass(frozen=True)
class Cell:
    """A cell of a table: the text that is shown, and the number that sorts it, if it has one."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort. `caption` says what a row is. `beside`: it is shown beside a figure."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    beside: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """A figure. `draw` makes it; `description` is its text alternative, and `data` its numbers as a table."""

    name: str
    title: str
    description: str
    draw: Callable[[], Drawing]
    data: Table | None = None
    kind: str = "figure"


@dataclass(frozen=True)
class Note:
    """A paragraph. `level` is "note" or "warning"."""

    text: str
    level: str = "note"
    kind: str = "note"


@dataclass(frozen=True)
class Example:
    """An example with its text, and the models' answers as name and value."""

    texts: Sequence[str]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Examples:
    """A list of examples."""

    title: str
    examples: Sequence[Example]
    kind: str = "examples"


@dataclass(frozen=True)
class Details:
    """A long text or a table that is closed at first."""

    title: str
    table: Table
    kind: str = "details"


Part = Table | Figure | Note | Examples | Details


@dataclass(frozen=True)
class Section:
    """A part of the page with a title. `anchor` is the target of a link to it."""

    title: str
    anchor: str
    parts: Sequence[Part] = field(default_factory=tuple)


def cell(value: object, digits: int = 4) -> Cell:
    """Return a cell of a number, a text, or nothing: numbers with separators, or with `digits` decimals."""
    if value is None or value == "":
        return Cell("")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value))
    if not math.isfinite(value):
        return Cell("undefined")
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}", float(value))


def words(name: str) -> str:
    """Return the name of a metric or a figure as people read it: "micro f1"."""
    return name.replace("_", " ")


def readable(text: str) -> str:
    """Return the text with lone surrogates as escapes: a name that is not UTF-8 has them, and JSON may hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[object]], digits: int = 4, beside: bool = False
) -> Table:
    """Return a table of plain values; a value that is a `Cell` already is kept."""
    cells = [[one if isinstance(one, Cell) else cell(one, digits) for one in row] for row in rows]
    return Table(caption, header, cells, beside)
