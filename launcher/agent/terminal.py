"""Copies a terminal's properties for rank 0, and turns terminal output into readable text for its log.

A progress bar is redrawn with control sequences, some ten times a second. The log gets the lines that stay on the
terminal in the end: each once, without colours.
"""

import fcntl
import os
import re
import struct
import termios
from contextlib import suppress

_SEQUENCE = re.compile(rb"\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\^_]")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;?]*|\][^\x07\x1b]*)?$")
_UP = re.compile(rb"\x1b\[(\d*)A")


class PlainText:
    """Turns terminal output into lines of text. Lines that a progress bar may redraw are held back until it ends."""

    HELD = 8
    """Number of lines held back at most: none of our bars is higher."""

    def __init__(self) -> None:
        self._rest = b""
        self._line = b""
        self._held: list[bytes] = []
        self._drawing = False

    def feed(self, piece: bytes) -> bytes:
        """Return the text that no longer changes."""
        data = self._rest + piece
        unfinished = _UNFINISHED.search(data)
        self._rest = data[unfinished.start() :] if unfinished else b""
        data = data[: len(data) - len(self._rest)]
        position = 0
        final = b""
        for found in _SEQUENCE.finditer(data):
            final += self._text(data[position : found.start()])
            self._apply(found.group())
            position = found.end()
        return final + self._text(data[position:]) + self._final()

    def end(self) -> bytes:
        """Return what is left when the output ends."""
        last = [self._line.rstrip(b"\r") + b"\n"] if self._line else []
        text, self._held, self._line = b"".join(self._held + last), [], b""
        return text

    def _text(self, text: bytes) -> bytes:
        final = b""
        for number, part in enumerate(text.split(b"\n")):
            if number:
                self._held.append(self._line.rstrip(b"\r") + b"\n")
                self._line = b""
                final += self._final()
            line = self._line + part
            # Text after a carriage return overwrites the line; a carriage return at the end waits for the next text.
            body = line.rstrip(b"\r")
            self._line = body.rpartition(b"\r")[2] + line[len(body) :][:1]
        return final

    def _apply(self, sequence: bytes) -> None:
        if up := _UP.fullmatch(sequence):
            count = int(up[1] or 1)
            self._held, self._line = self._held[: max(0, len(self._held) - count)], b""
        elif sequence.endswith(b"K"):
            self._line = b""
        elif sequence in (b"\x1b[?25l", b"\x1b[?25h"):  # a bar hides the cursor while it is drawn
            self._drawing = sequence.endswith(b"l")

    def _final(self) -> bytes:
        keep = self.HELD if self._drawing else 0
        count = max(0, len(self._held) - keep)
        text, self._held = b"".join(self._held[:count]), self._held[count:]
        return text


def make_terminal(like: int) -> tuple[int, int]:
    """Return (master, slave) of a new pseudo-terminal of the same size as `like`. It passes every byte on unchanged."""
    master, slave = os.openpty()
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST  # the real terminal adds the carriage returns
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    copy_size(like, master)
    return master, slave


def copy_size(source: int, target: int) -> None:
    """Copy rows and columns of one terminal to another."""
    with suppress(OSError):  # the real terminal may be gone
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)
