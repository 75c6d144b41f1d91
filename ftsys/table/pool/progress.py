"""Shows the runs of a table: a bar for all of them and one for each that runs; without a terminal a line for each."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from ftsys.console.printer import plain, say
from ftsys.files.untrusted import file_bytes, json_object, open_regular
from ftsys.run_folder.layout import METRICS_LOG, PLAN
from ftsys.table.cells import Cell
from ftsys.table.dry_run import duration
from ftsys.table.pool.slots import Slot
from ftsys.table.state import CellState

DRAW_SECONDS = 0.5
_TAIL_BYTES = 4096


class PoolProgress:
    """Shows how many cells are settled, the time left, and the step of each running one. `clock` is in seconds."""

    def __init__(self, cells: int, seconds: Mapping[Path, float], slots: int, stream: TextIO | None = None) -> None:
        self._cells, self._seconds, self._slots = cells, seconds, slots
        self._stream = sys.stderr if stream is None else stream
        self._bars: Any = None
        self._tasks: dict[Path, Any] = {}
        self._drawn = 0.0

    def __enter__(self) -> Self:
        if self._stream.isatty() and os.environ.get("TERM", "") != "dumb":
            self._bars = _bars(self._stream)
            self._bars.start()
            self._tasks[Path()] = self._bars.add_task("table", total=self._cells, details="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def started(self, cell: Cell, slot: Slot) -> None:
        """Note that a cell was started."""
        self._line(f"{cell.name}: started on {slot.name}")

    def ended(self, cell: Cell, state: CellState, status: int) -> None:
        """Note how a cell ended."""
        known = {"done": "done", "failed": "failed", "failed once": "failed, is tried once more", "refused": "refused"}
        told = known.get(state.name, "stopped")
        self._line(f"{cell.name}: {told}" + (f" ({state.reason or f'exit status {status}'})" if status else ""))

    def update(self, states: Mapping[Path, CellState], running: Sequence[tuple[Cell, Slot]]) -> None:
        """Draw the bars, at most every DRAW_SECONDS."""
        if self._bars is None or time.monotonic() - self._drawn < DRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        settled = {folder for folder, state in states.items() if state.is_settled}
        left = sum(seconds for folder, seconds in self._seconds.items() if folder not in settled) / self._slots
        details = f"{len(settled)} of {self._cells} runs, about {duration(left)} left" if left else ""
        self._bars.update(self._tasks[Path()], completed=len(settled), details=details)
        for folder in set(self._tasks) - {cell.folder for cell, _ in running} - {Path()}:
            self._bars.remove_task(self._tasks.pop(folder))
        for cell, slot in running:
            self._draw(cell, slot)
        self._bars.refresh()

    def _draw(self, cell: Cell, slot: Slot) -> None:
        if cell.folder not in self._tasks:
            self._tasks[cell.folder] = self._bars.add_task(plain(cell.name), total=None, details=slot.name)
        last, total = last_line(cell.folder), _total_steps(cell.folder)
        figures = [
            f"{name.replace('_', ' ')} {last[name]:.3g}" for name in _FIGURES if isinstance(last.get(name), float)
        ]
        details = ", ".join([slot.name, *figures])
        self._bars.update(self._tasks[cell.folder], completed=last.get("step", 0), total=total, details=details)

    def _line(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(plain(text), highlight=False, markup=False, soft_wrap=True)
        else:
            say(text, self._stream)


_FIGURES = ("loss", "accuracy", "f1", "matthews_correlation", "pearson", "real_tokens_per_s")


def last_line(folder: Path) -> dict[str, Any]:
    """Return the last whole line of a run's metrics log; {} if there is none. Reads the file's end only."""
    try:
        with open_regular(folder / METRICS_LOG) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = stream.read().rpartition(b"\n")[0].splitlines()
        return json_object(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return {}


def _total_steps(folder: Path) -> int | None:
    try:
        total = json_object(file_bytes(folder / PLAN)).get("total_steps")
    except (OSError, ValueError):
        return None
    return total if isinstance(total, int) else None


def _bars(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[details]}"),
    )
    return Progress(*columns, console=Console(file=stream), auto_refresh=False)
