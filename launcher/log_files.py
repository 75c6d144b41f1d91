"""Writes and finds the title lines of log files: each start appends to the same log and begins with a title."""

import socket
import time

_MARK = "---- "


def title_line(about: str) -> str:
    """Return the line that begins a start's part of a log: time, host name and `about`, without a newline."""
    return f"{_MARK}{time.strftime('%Y-%m-%d %H:%M:%S')} {socket.gethostname()}: {about}"


def newest_part(log: str) -> str:
    """Return what the newest start wrote into a log: everything after its last title line."""
    later = f"\n{_MARK}"
    return log.rpartition(later)[2].partition("\n")[2] if later in log else log.partition("\n")[2]
