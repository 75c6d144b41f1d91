"""Prints the table of metrics: a row for each evaluation, plain text, with bold and colour on a terminal.

If the metrics do not fit into the width, the table has several blocks, one below the other, each with the rows' names.
"""

import math
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from ftsys.console.printer import plain

GAP = 2
"""Spaces between columns."""

_KEYS = ("epoch", "step", "split", "run")
"""The leading columns, which identify a row."""


@dataclass(frozen=True)
class Row:
    """One evaluation. A value that is None is left blank.

    `label` replaces epoch, step and split for a row that belongs to no epoch: "bag of words (baseline)".
    """

    epoch: float | None = None
    step: int | None = None
    split: str | None = None
    train_loss: float | None = None
    eval_loss: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    rows: int | None = None
    label: str | None = None
    run: str | None = None
    """The name of a run, instead of epoch and step, if the row stands for a whole run."""


@dataclass(frozen=True)
class Line:
    """A printable line of the table. `kind` is "title", "header", "rule", "row", "best" or "note"."""

    text: str
    kind: str


def metric_table(
    rows: Sequence[Row], *, title: str = "", extra_rows: Sequence[Row] = (), best: Row | None = None, width: int = 80
) -> list[Line]:
    """Format the table in lines of at most `width` characters: `rows` in order, a rule, then `extra_rows`.

    A star marks `best`, the row whose weights are kept.
    """
    columns = _columns([*rows, *extra_rows], [row is best for row in rows])
    lines = [Line(part, "title") for part in _wrap(title, width)]
    for block in _blocks(columns, width, sum(column.header in _KEYS for column in columns)):
        lines += _draw(block, [*rows, *extra_rows], len(rows), best, width)
    return lines


def history_rows(lines: Iterable[Mapping[str, object]]) -> list[Row]:
    """Make a row of each evaluation in a run's metrics log, with the last training loss before it."""
    rows, loss = [], None
    plain = {"step", "epoch", "time", "attempt", "split", "loss", "examples", "resumed_at"}
    speed = {"runtime", "samples_per_second", "steps_per_second", "jit_compilation_time"}
    for line in lines:
        if "split" not in line:
            loss = line.get("loss", loss)
            continue
        metrics = {name: value for name, value in line.items() if name not in plain | speed}
        known = {"epoch": line.get("epoch"), "step": line.get("step"), "split": line["split"]}
        losses = {"train_loss": loss, "eval_loss": line.get("loss")}
        rows.append(Row(**known, **losses, metrics=metrics, rows=line.get("examples")))  # type: ignore[arg-type]
    return rows


def print_final(
    rows: Sequence[Row],
    *,
    title: str,
    places: Mapping[str, Path | str] | None = None,
    extra_rows: Sequence[Row] = (),
    best: Row | None = None,
    notes: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Print the table, `notes`, and the paths in `places` with their names. Paths are never truncated."""
    stream = sys.stdout if stream is None else stream
    width = _width(stream)
    lines = metric_table(rows, title=title, extra_rows=extra_rows, best=best, width=width)
    lines += [Line(part, "note") for note in notes for part in _wrap(note, width)]
    label_width = max((len(name) for name in places or {}), default=0)
    lines += [Line(f"{name:<{label_width}}  {place}", "note") for name, place in (places or {}).items()]
    print_lines(lines, stream)


def print_lines(lines: Iterable[Line], stream: TextIO | None = None) -> None:
    """Print lines of a table, with styles if `stream` is a terminal."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        stream.writelines(plain(line.text).rstrip() + "\n" for line in lines)
        stream.flush()
        return
    from rich.console import Console
    from rich.text import Text

    styles = {"title": "bold", "header": "bold cyan", "rule": "dim", "best": "bold green"}
    console = Console(file=stream, highlight=False)
    for line in lines:
        console.print(Text(plain(line.text).rstrip(), style=styles.get(line.kind, "")), soft_wrap=True)


@dataclass(frozen=True)
class _Column:
    header: str
    cells: list[str]

    @property
    def width(self) -> int:
        return max(len(self.header), *(len(cell) for cell in self.cells), 0)


def _columns(rows: Sequence[Row], starred: Sequence[bool]) -> list[_Column]:
    """Return all columns with a value: keys, losses, metrics in the order of appearance, number of rows."""
    stars = ["*" if star else " " for star in starred] if any(starred) else [""] * len(starred)
    stars += [stars[0].replace("*", " ") if stars else ""] * (len(rows) - len(starred))
    values: dict[str, list[str]] = {
        "epoch": [_number(row.epoch, 2) + star for row, star in zip(rows, stars, strict=True)],
        "step": [_number(row.step) for row in rows],
        "split": [row.split or "" for row in rows],
        "run": [row.run or "" for row in rows],
        "train loss": [_number(row.train_loss) for row in rows],
        "eval loss": [_number(row.eval_loss) for row in rows],
    }
    for name in dict.fromkeys(name for row in rows for name in row.metrics):
        values[name.replace("_", " ")] = [_metric(row.metrics, name) for row in rows]
    values["rows"] = [_number(row.rows) for row in rows]
    always = () if any(values["run"]) else ("epoch", "step")
    return [_Column(name, cells) for name, cells in values.items() if any(cells) or name in always]


def _blocks(columns: list[_Column], width: int, keys: int) -> list[list[_Column]]:
    """Distribute columns over blocks of at most `width`; each block begins with the first `keys` columns."""
    head, blocks = columns[:keys], [columns[:keys]]
    for column in columns[keys:]:
        if len(blocks[-1]) > keys and _total([*blocks[-1], column]) > width:
            blocks.append(list(head))
        blocks[-1] = [*blocks[-1], column]
    return blocks


def _total(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def _draw(block: list[_Column], rows: Sequence[Row], own: int, best: Row | None, width: int) -> list[Line]:
    """Format a block: header, rule, the first `own` rows, a rule, and the extra rows."""
    cells = [[column.cells[index] for column in block] for index in range(len(rows))]
    texts = [
        _labelled(block, row, line) if row.label else _aligned(block, line)
        for row, line in zip(rows, cells, strict=True)
    ]
    width = max(width, _total(block))  # if one metric is wider than the terminal, let the terminal wrap the lines
    rule = Line("-" * min(width, max(_total(block), *(len(text) for text in texts), 0)), "rule")
    lines = [Line(_aligned(block, [column.header for column in block]), "header"), rule]
    for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if index == own:
            lines.append(rule)
        lines.append(Line(text[:width], "best" if row is best else "row"))
    return lines


def _aligned(block: Sequence[_Column], cells: Sequence[str]) -> str:
    """Align cells to the right; the names of splits and runs, which are text, to the left."""
    padded = (
        cell.ljust(column.width) if column.header in ("split", "run") else cell.rjust(column.width)
        for column, cell in zip(block, cells, strict=True)
    )
    return (" " * GAP).join(padded)


def _labelled(block: Sequence[_Column], row: Row, cells: Sequence[str]) -> str:
    """Write the row's label over its leading empty cells, truncated before the first number."""
    text = _aligned(block, cells)
    free = len(text) - len(text.lstrip())
    label = row.label or ""
    room = free - GAP if text.strip() else max(free, len(label))
    return (label if len(label) <= room else label[: max(room - 1, 0)] + "…").ljust(free) + text[free:]


def _metric(metrics: Mapping[str, float | None], name: str) -> str:
    """Format a metric: blank if the row has no such metric, null if it is undefined."""
    if name not in metrics:
        return ""
    value = metrics[name]
    return "null" if value is None else _number(float(value))


def _number(value: float | None, digits: int = 4) -> str:
    """Format a number with `digits` decimals, integers without; null for NaN and infinities, blank for None."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}" if math.isfinite(value) else "null"


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _width(stream: TextIO) -> int:
    """Return the terminal's width in characters; 80 for other streams."""
    return shutil.get_terminal_size((80, 24)).columns if stream.isatty() else 80
