"""Writes and finds the title lines of log files: each start appends to the same log and begins with a title."""

import os
import socket
import time
from pathlib import Path

_MARK = "---- "


def title_line(about: str) -> str:
    """Return the line that begins a start's part of a log: time, host name and `about`, without a newline."""
    return f"{_MARK}{time.strftime('%Y-%m-%d %H:%M:%S')} {socket.gethostname()}: {about}"


def on_own_line(title: str, log: Path) -> bytes:
    """Return what to append to `log` for a title, which begins a line even if a killed program left one unended."""
    try:
        with log.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            last = stream.read(1)
    except OSError:  # there is no log yet, or an empty one
        last = b"\n"
    return (b"" if last == b"\n" else b"\n") + f"{title}\n".encode()


def newest_part(log: str) -> str:
    """Return what the newest start wrote into a log: everything after its last title line."""
    later = f"\n{_MARK}"
    return log.rpartition(later)[2].partition("\n")[2] if later in log else log.partition("\n")[2]
