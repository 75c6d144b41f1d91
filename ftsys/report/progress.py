"""Shows the progress of a task: a bar on a terminal, a line of text every few seconds elsewhere.

Only rank 0 writes, to standard error, so that standard output has only results. `update` draws the bar; there is no
thread, because forking data workers from a process with threads is not safe.
"""

import functools
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from ftsys.console.printer import plain, say
from ftsys.ranks import is_main_rank

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 5.0
"""Shortest time between two lines of text, in seconds; the first and the last line are always written."""

RATE_SECONDS = 1.0
"""Shortest time from which a rate is computed, in seconds: the first rows come at once, from a queue or a cache."""

BAR_SECONDS = 0.1
"""Shortest time between two drawings of the bar, in seconds."""


class Progress:
    """Shows how much of a task is done, its rate, the remaining time and other values.

    with Progress("train", total=345, unit="steps") as progress:
        progress.update(12, loss=0.61)

    `total` is None if it is unknown. `initial` is the amount done before this process started; the rate does not count
    it. `enabled`: True, False, or None for rank 0 only. `stream` and `clock` (in seconds) are for tests.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str = "rows",
        *,
        enabled: bool | None = None,
        initial: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.enabled = is_main_rank() if enabled is None else enabled
        self.done = self.initial = initial
        self._figures: dict[str, object] = {}
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._started = clock()
        self._shown_at = self._shown_done = None  # type: float | None
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._started = self._clock()
        if self.enabled and _is_terminal(self._stream):
            # While a bar is open, rich replaces standard error by a proxy. Take the stream behind it, so that a second
            # bar uses the console of the first.
            self._bar = _Bar(self, _console(getattr(self._stream, "rich_proxied_file", self._stream)))
        return self

    def update(self, done: int, **figures: object) -> None:
        """Set the number of units done so far. Each of `figures` is shown until a new value of the same name."""
        self.done = done
        self._figures.update(figures)
        interval = LINE_SECONDS if self._bar is None else BAR_SECONDS
        due = self._shown_at is None or self._clock() - self._shown_at >= interval
        just_finished = done == self.total and self._shown_done != done
        if self.enabled and (due or just_finished):
            self._show()

    def say(self, text: str) -> None:
        """Write a line of text, above the bar if there is one."""
        if self.enabled and self._bar is not None:
            self._bar.print(text)
        elif self.enabled:
            say(text, self._stream)

    def skip(self, seconds: float) -> None:
        """Exclude `seconds` that were spent on another task (an evaluation, a save) from the rate."""
        self._started += seconds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.enabled and self._shown_done != self.done:
            self._show()
        if self._bar is not None:
            self._bar.close()

    def line(self) -> str:
        """Return the state as text: `train: 120/345 steps (35%), 12.3 steps/s, 0:18 left, loss 0.52`."""
        share = f"/{self.total:,} {self.unit} ({self.done / max(self.total, 1):.0%})" if self.total is not None else ""
        return ", ".join([f"{self.title}: {self.done:,}{share or f' {self.unit}'}", *self.details()])

    def details(self) -> list[str]:
        """Return rate, remaining time (at the end, elapsed time) and other values, as texts."""
        elapsed = self._clock() - self._started
        rate = (self.done - self.initial) / elapsed if elapsed >= RATE_SECONDS else 0.0
        texts = [f"{_short(rate)} {self.unit}/s"] if rate else []
        if self.total is not None and self.done >= self.total:
            texts.append(f"in {duration(elapsed)}")
        elif self.total is not None and rate:
            texts.append(f"{duration((self.total - self.done) / rate)} left")
        return texts + [f"{name.replace('_', ' ')} {_short(value)}" for name, value in self._figures.items()]

    def _show(self) -> None:
        self._shown_at, self._shown_done = self._clock(), self.done
        if self._bar is not None:
            self._bar.draw()
        else:
            say(self.line(), self._stream)


class SplitProgress:
    """Shows the progress of a task that goes through splits one after another: call it with (done, total, split).

    with SplitProgress("prepare") as progress:
        ensure_store(run, task, progress)
    """

    def __init__(
        self,
        title: str,
        unit: str = "rows",
        *,
        enabled: bool | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._clock = title, clock
        self._make = functools.partial(Progress, unit=unit, enabled=enabled, stream=stream, clock=clock)
        self._split, self._progress = "", None  # type: str, Progress | None
        self._since = clock()

    def __enter__(self) -> Self:
        self._since = self._clock()
        return self

    def __call__(self, done: int, total: int | None, split: str) -> None:
        """Set the number of rows of `split` done so far; `total` is None if it is unknown."""
        if self._progress is None or split != self._split:
            self.__exit__()
            self._split, self._progress = split, self._make(f"{self._title} {split}", total).__enter__()
            self._progress.skip(self._since - self._clock())  # it began when the previous split ended
        self._progress.update(done)
        self._since = self._clock()

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
        self._progress = None


class _Bar:
    """Draws a Progress on a terminal. Bars on one stream share a console, so that several can be open at once."""

    def __init__(self, progress: Progress, console: "Console") -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%" if progress.total is not None else "{task.completed:,}"),
            TextColumn("{task.fields[details]}"),
        )
        self._progress = progress
        self._rich = RichProgress(*columns, console=console, auto_refresh=False)
        self._task = self._rich.add_task(progress.title, total=progress.total, details="")
        self._rich.start()

    def draw(self) -> None:
        details = ", ".join(self._progress.details())
        self._rich.update(self._task, completed=self._progress.done, details=details, refresh=True)

    def print(self, text: str) -> None:
        self._rich.console.print(plain(text), highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._rich.stop()


@functools.cache
def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    return Console(file=stream)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def _short(value: object) -> str:
    """Format a number in few characters: 12.3k, 0.524; any other value as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.3g}{letter}"
    return str(value) if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """Format seconds as 0:18, 12:05 or 3:12:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
