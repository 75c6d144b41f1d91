"""Writes the launcher's own lines to standard error; standard output belongs to rank 0."""

import sys
from contextlib import suppress


def say(line: str) -> None:
    """Write one line. A terminal that is gone is no error: the ranks must still be ended."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def show_cursor() -> None:
    """Show the terminal's cursor again: a progress bar that was killed has left it hidden."""
    if sys.stderr.isatty():
        with suppress(OSError):
            print("\x1b[?25h", end="", file=sys.stderr, flush=True)
