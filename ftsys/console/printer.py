"""Prints text for people. No other module of `ftsys` or `launcher` prints.

Results go to standard output (`show`), everything else to standard error (`say`, `complain`). Text may come from files:
terminal sequences and control characters are removed, so that no file moves the cursor, sets a title or hides a line.
"""

import re
import sys
from contextlib import suppress
from typing import TextIO

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC, DCS, SOS, PM, APC: titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]?"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that reverse the direction of the text that follows."""

SHOW_CURSOR = "\x1b[?25h"


def plain(text: str) -> str:
    """Return the text without terminal sequences and control characters; tabs and newlines stay."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


def show(text: str = "", end: str = "\n") -> None:
    """Print a result to standard output. Raises StorageError where that is a file that cannot be written."""
    print(plain(text), end=end, flush=True)  # the error is that of the guarded stream


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line to standard error, or to `stream`. A stream that cannot be written is no error."""
    with suppress(OSError, ValueError):
        print(plain(text), file=sys.stderr if stream is None else stream, flush=True)


def complain(error: object) -> None:
    """Print an error to standard error: its first line after `error: `, and the rest below."""
    say(f"error: {error}")


def copy_out(data: bytes) -> None:
    """Copy a log to standard output: unchanged to a file or a pipe, without terminal sequences to a terminal."""
    if sys.stdout.isatty():
        data = plain(data.decode(errors="backslashreplace")).encode()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def copy_err(data: bytes) -> None:
    """Copy another process's output to standard error unchanged, progress bars included."""
    with suppress(OSError, ValueError):
        sys.stderr.buffer.write(data)
        sys.stderr.flush()


def show_cursor() -> None:
    """Show the terminal's cursor again: a progress bar that was ended by force has left it hidden."""
    if sys.stderr.isatty():
        with suppress(OSError, ValueError):
            print(SHOW_CURSOR, end="", file=sys.stderr, flush=True)
