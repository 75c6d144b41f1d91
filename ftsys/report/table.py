"""The metric table: a row an evaluation, aligned in plain text, bold and coloured on a terminal, never too wide.

Too many metrics for the width make several blocks one under another, each with the row's name again.
"""

import math
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

GAP = 2
"""Spaces between columns."""

_KEYS = ("epoch", "step", "split", "run")
"""The leading columns: they name a row."""


@dataclass(frozen=True)
class Row:
    """One evaluation. What is None is left blank.

    `label` stands in place of epoch, step and split for a row that is no epoch's: "bag of words (baseline)".
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
    """The name of a whole run, in place of epoch and step, where a row is one."""


@dataclass(frozen=True)
class Line:
    """A line of the table, ready to print. `kind` is "title", "header", "rule", "row", "best" or "note"."""

    text: str
    kind: str


def metric_table(
    rows: Sequence[Row], *, title: str = "", extra_rows: Sequence[Row] = (), best: Row | None = None, width: int = 80
) -> list[Line]:
    """The table as lines of at most `width` columns: `rows` in order, a rule, then `extra_rows`.

    `best` is marked by a star: the row whose weights are kept.
    """
    columns = _columns([*rows, *extra_rows], [row is best for row in rows])
    lines = [Line(part, "title") for part in _wrap(title, width)]
    for block in _blocks(columns, width, sum(column.header in _KEYS for column in columns)):
        lines += _draw(block, [*rows, *extra_rows], len(rows), best, width)
    return lines


def history_rows(lines: Iterable[Mapping[str, object]]) -> list[Row]:
    """Rows from the lines of a run's metrics.jsonl: an evaluation each, with the last training loss before it."""
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
    """Print the table, `notes`, and where the results are: `places` by what lies there. Paths are never cut."""
    stream = sys.stdout if stream is None else stream
    width = _width(stream)
    lines = metric_table(rows, title=title, extra_rows=extra_rows, best=best, width=width)
    lines += [Line(part, "note") for note in notes for part in _wrap(note, width)]
    label_width = max((len(name) for name in places or {}), default=0)
    lines += [Line(f"{name:<{label_width}}  {place}", "note") for name, place in (places or {}).items()]
    print_lines(lines, stream)


def print_lines(lines: Iterable[Line], stream: TextIO | None = None) -> None:
    """Print lines of a table, with styles where `stream` is a terminal."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        stream.writelines(line.text.rstrip() + "\n" for line in lines)
        return
    from rich.console import Console
    from rich.text import Text

    styles = {"title": "bold", "header": "bold cyan", "rule": "dim", "best": "bold green"}
    console = Console(file=stream, highlight=False)
    for line in lines:
        console.print(Text(line.text.rstrip(), style=styles.get(line.kind, "")), soft_wrap=True)


@dataclass(frozen=True)
class _Column:
    header: str
    cells: list[str]

    @property
    def width(self) -> int:
        return max(len(self.header), *(len(cell) for cell in self.cells), 0)


def _columns(rows: Sequence[Row], starred: Sequence[bool]) -> list[_Column]:
    """Every column that holds something: keys, losses, metrics in order of appearance, the number of rows."""
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
    """Columns dealt to blocks of at most `width`, each beginning with the first `keys` columns."""
    head, blocks = columns[:keys], [columns[:keys]]
    for column in columns[keys:]:
        if len(blocks[-1]) > keys and _total([*blocks[-1], column]) > width:
            blocks.append(list(head))
        blocks[-1] = [*blocks[-1], column]
    return blocks


def _total(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def _draw(block: list[_Column], rows: Sequence[Row], own: int, best: Row | None, width: int) -> list[Line]:
    """A block's header, rule and rows; `own` rows, then a rule before the extra ones."""
    cells = [[column.cells[index] for column in block] for index in range(len(rows))]
    texts = [
        _labelled(block, row, line) if row.label else _aligned(block, line)
        for row, line in zip(rows, cells, strict=True)
    ]
    width = max(width, _total(block))  # a window narrower than one metric: better broken by it than cut by us
    rule = Line("-" * min(width, max(_total(block), *(len(text) for text in texts), 0)), "rule")
    lines = [Line(_aligned(block, [column.header for column in block]), "header"), rule]
    for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if index == own:
            lines.append(rule)
        lines.append(Line(text[:width], "best" if row is best else "row"))
    return lines


def _aligned(block: Sequence[_Column], cells: Sequence[str]) -> str:
    """Right-aligned cells; a split's or a run's name, which is text, on the left."""
    padded = (
        cell.ljust(column.width) if column.header in ("split", "run") else cell.rjust(column.width)
        for column, cell in zip(block, cells, strict=True)
    )
    return (" " * GAP).join(padded)


def _labelled(block: Sequence[_Column], row: Row, cells: Sequence[str]) -> str:
    """The row's label over its leading empty cells, cut where the first figure begins."""
    text = _aligned(block, cells)
    free = len(text) - len(text.lstrip())
    label = row.label or ""
    room = free - GAP if text.strip() else max(free, len(label))
    return (label if len(label) <= room else label[: max(room - 1, 0)] + "…").ljust(free) + text[free:]


def _metric(metrics: Mapping[str, float | None], name: str) -> str:
    """Blank where the row has no such metric, null where it is undefined."""
    if name not in metrics:
        return ""
    value = metrics[name]
    return "null" if value is None else _number(float(value))


def _number(value: float | None, digits: int = 4) -> str:
    """A figure with `digits` decimals, whole numbers without any, null for what is no number, blank for None."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}" if math.isfinite(value) else "null"


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _width(stream: TextIO) -> int:
    """The terminal's width, 80 elsewhere."""
    return shutil.get_terminal_size((80, 24)).columns if stream.isatty() else 80
