"""Rank 0's output on the terminal and in its log: a terminal stays one for the rank, and its log stays readable text.

A progress bar is drawn over itself with control sequences, some ten times a second. The log gets what a person would
have seen in the end: each line once, without colours.
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
    """Terminal output -> lines of text. Lines that a bar may still draw over are held back until it is gone."""

    HELD = 8
    """Lines held back at most: no bar of ours is higher."""

    def __init__(self) -> None:
        self._rest = b""
        self._line = b""
        self._held: list[bytes] = []
        self._drawing = False

    def feed(self, piece: bytes) -> bytes:
        """The text that is settled by now."""
        data = self._rest + piece
        unfinished = _UNFINISHED.search(data)
        self._rest = data[unfinished.start() :] if unfinished else b""
        data = data[: len(data) - len(self._rest)]
        position = 0
        settled = b""
        for found in _SEQUENCE.finditer(data):
            settled += self._text(data[position : found.start()])
            self._obey(found.group())
            position = found.end()
        return settled + self._text(data[position:]) + self._settled()

    def end(self) -> bytes:
        """What is left when the output ends."""
        last = [self._line.rstrip(b"\r") + b"\n"] if self._line else []
        text, self._held, self._line = b"".join(self._held + last), [], b""
        return text

    def _text(self, text: bytes) -> bytes:
        settled = b""
        for number, part in enumerate(text.split(b"\n")):
            if number:
                self._held.append(self._line.rstrip(b"\r") + b"\n")
                self._line = b""
                settled += self._settled()
            line = self._line + part
            # What follows a carriage return is written over what stands there; one at the end waits for what comes.
            body = line.rstrip(b"\r")
            self._line = body.rpartition(b"\r")[2] + line[len(body) :][:1]
        return settled

    def _obey(self, sequence: bytes) -> None:
        if up := _UP.fullmatch(sequence):
            count = int(up[1] or 1)
            self._held, self._line = self._held[: max(0, len(self._held) - count)], b""
        elif sequence.endswith(b"K"):
            self._line = b""
        elif sequence in (b"\x1b[?25l", b"\x1b[?25h"):  # a bar hides the cursor while it is drawn
            self._drawing = sequence.endswith(b"l")

    def _settled(self) -> bytes:
        keep = self.HELD if self._drawing else 0
        count = max(0, len(self._held) - keep)
        text, self._held = b"".join(self._held[:count]), self._held[count:]
        return text


def make_terminal(like: int) -> tuple[int, int]:
    """(master, slave) of a new pseudo-terminal as wide and high as the terminal `like`, which changes no byte."""
    master, slave = os.openpty()
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST  # the real terminal turns a line's end into carriage return and line feed
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    copy_size(like, master)
    return master, slave


def copy_size(source: int, target: int) -> None:
    """Give one terminal the other's rows and columns."""
    with suppress(OSError):  # the real terminal may be gone
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)
