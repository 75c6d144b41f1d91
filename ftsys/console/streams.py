"""Makes standard output and error safe to write to: a closed pipe or a closed terminal never ends the program.

Once the reader is gone, output is discarded and the program goes on: `ftsys train ... 2>&1 | head -1` trains on.
Standard output that cannot be written for another reason, such as a full disk, is a StorageError, whoever prints.
"""

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

from ftsys.errors import StorageError

_READER_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO)
"""Errors of a pipe without a reader, and of a terminal that was closed."""


class _Guarded(io.FileIO):
    """Writes to a file descriptor until its reader is gone, and from then on to /dev/null.

    `forgiving`: drop what cannot be written for any other reason, such as a full disk, instead of raising StorageError.
    """

    def __init__(self, descriptor: int, forgiving: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.forgiving, self.reader_gone = forgiving, False

    def write(self, data: Any) -> int:
        """Write once; returns the number of bytes that were taken."""
        try:
            while (written := super().write(data)) is None:
                select.select([], [self.fileno()], [])  # another program made the terminal non-blocking, and it is full
            return written
        except OSError as error:
            self._give_up(error)
            return memoryview(data).nbytes

    def _give_up(self, error: OSError) -> None:
        """Drop what was to be written. An error that must be reported is raised once: the buffer is written again."""
        if error.errno in _READER_GONE:
            self.reader_gone = True
            _to_null(self.fileno())  # for native code and children, which write to the descriptor itself
        elif not self.forgiving:
            self.forgiving = True
            reason = error.strerror or str(error)
            raise StorageError(f"standard output cannot be written ({reason}): send it to another place.") from error


def guard_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` by guarded streams. Text that the encoding lacks is written as \\xNN.

    A descriptor that is closed is opened on /dev/null first: otherwise the next file would get its number, and
    messages would be written into that file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout, sys.stderr = _guarded(sys.stdout, 1), _guarded(sys.stderr, 2)


def reader_is_gone() -> bool:
    """Return True if nobody can read standard output any more."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Guarded) and raw.reader_gone


def _guarded(former: TextIO | None, descriptor: int) -> TextIO:
    stream = io.BufferedWriter(_Guarded(descriptor, forgiving=descriptor == 2))
    if not isinstance(former, io.TextIOWrapper):  # None where the descriptor was closed
        return io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace")
    former.flush()
    return io.TextIOWrapper(
        stream,
        encoding=former.encoding,
        errors="backslashreplace",
        line_buffering=former.line_buffering,
        write_through=former.write_through,
    )


def _to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
