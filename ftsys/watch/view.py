"""Shows snapshots of runs: as aligned lines of text, or as a table of `rich` that is drawn again and again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftsys.console.printer import plain
from ftsys.report.progress import duration
from ftsys.watch.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.table import Table

HEADER = ("run", "state", "step", "loss", "tokens/s", "last metrics", "left", "")
_RIGHT = ("step", "loss", "tokens/s", "left")
_STYLES = {"running": "cyan", "done": "green", "stopped": "yellow", "not started": "dim"}
_MOST_METRICS = 3
_LONGEST_REASON = 80


def cells(run: Snapshot) -> tuple[str, ...]:
    """Return the texts of a run's row, without control characters."""
    state = f"{run.state}: {run.phase}" if run.state == "running" and run.phase else run.state
    steps = f"{run.step:,}" if run.total is None else f"{run.step:,}/{run.total:,}"
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in list(run.metrics.items())[:_MOST_METRICS])
    loss = "" if run.loss is None else f"{run.loss:.4f}"
    speed = "" if run.tokens_per_s is None else f"{run.tokens_per_s:,.0f}"
    left = "" if run.seconds_left is None else duration(run.seconds_left)
    return tuple(
        plain(text).replace("\n", " ") for text in (run.name, state, steps, loss, speed, metrics, left, _note(run))
    )


def _note(run: Snapshot) -> str:
    if run.stalled:
        return f"no news for {duration(run.silent or 0.0)}: a rank may hang, or the run was killed"
    reason = run.reason.partition("\n")[0]
    return reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "…"


def text_lines(runs: Sequence[Snapshot]) -> list[str]:
    """Return the header and a line for each run, in aligned columns. Empty columns are left out."""
    rows = [HEADER, *map(cells, runs)]
    kept = [column for column in range(len(HEADER)) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in kept}
    return ["  ".join(_aligned(row[column], column, widths[column]) for column in kept).rstrip() for row in rows]


def _aligned(text: str, column: int, width: int) -> str:
    return text.rjust(width) if HEADER[column] in _RIGHT else text.ljust(width)


def summary(runs: Sequence[Snapshot]) -> str:
    """Return the number of runs by state: "1 running, 2 done"."""
    states = [run.state for run in runs]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def rich_table(runs: Sequence[Snapshot]) -> "Table":
    """Return the table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", caption=summary(runs), caption_justify="left", pad_edge=False)
    for name in HEADER:
        table.add_column(
            name, justify="right" if name in _RIGHT else "left", overflow="fold" if not name else "ellipsis"
        )
    for run in runs:
        style = "bold red" if run.stalled else _STYLES.get(run.state, "red")
        texts = [Text(text) for text in cells(run)]
        texts[1].stylize(style)
        table.add_row(*texts)
    return table
