"""Runs `ftsys` and `ftlaunch` as whole processes. Imports next to nothing, so that Ctrl-C is handled from the start."""

import errno
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType

from ftsys.console.child_python import pass_on_own_folder
from ftsys.console.printer import complain, show_cursor
from ftsys.console.streams import guard_streams
from ftsys.errors import BAD_INPUT, INTERRUPTED
from ftsys.ranks import may_complain

SECOND_INTERRUPT_SECONDS = 1.0
"""A terminal and a launcher may both send the signal of one Ctrl-C; a later one is a second Ctrl-C."""
MOST_FILES = 65_536
"""Open files of a process. The usual limit of 1,024 is too low for rank 0 of 1,000 ranks, or for ssh to 500 hosts."""
_DENIED = "permission denied. Ask its owner, or name a file or folder of your own."
_ADVICE = {
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENAMETOOLONG: "this name is too long for a file or a folder. Correct the path.",
}
"""By the number of an OSError about a path of the user's."""
_INTERRUPTED = "interrupted by Ctrl-C. No file is half-written: start the same command again."
_LONGEST_TOLD = 255


class _Interrupt:
    """Raises KeyboardInterrupt at the first Ctrl-C. A second one ends the process at once."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.at is None:
            self.at = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self.at > SECOND_INTERRUPT_SECONDS:
            os._exit(INTERRUPTED)


def run_program(main: Callable[[], int]) -> int:
    """Run a program's `main` and return the exit status; INTERRUPTED after Ctrl-C, with one line and no traceback.

    Commands that have files to complete handle the signal themselves while they run, as `ftsys train` does. Arguments
    that are not text are refused: file names go into messages and into files, which are UTF-8. A file or folder that
    the user may not read or write is wrong input at any place, and so is a name that no file can have.
    """
    guard_streams()
    pass_on_own_folder(os.environ)
    raise_file_limit()
    wrong = first_undecoded(sys.argv[1:])
    if wrong is not None:
        if may_complain():
            complain(f"argument {wrong!r} has bytes that are not UTF-8: rename the file or folder, and name it again.")
        return BAD_INPUT
    interrupt = _Interrupt()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # ignored in the background of a script
        signal.signal(signal.SIGINT, interrupt)
    try:
        return main()
    except BaseException as error:
        # Libraries turn KeyboardInterrupt into errors of their own, for instance while they are imported.
        status, said = (INTERRUPTED, _INTERRUPTED) if interrupt.at is not None else (BAD_INPUT, _wrong_path(error))
        if said is None:
            raise
        show_cursor()
        if may_complain():
            complain(said)
        return status


def _wrong_path(error: BaseException) -> str | None:
    """Return the message about a path of the user's that the system refuses; None for any other error."""
    advice = _ADVICE.get(error.errno or 0) if isinstance(error, OSError) else None
    if not isinstance(error, OSError) or error.filename is None or advice is None:
        return None
    name = str(error.filename)
    told = name if len(name) <= _LONGEST_TOLD else f"{name[:80]}..."
    return f"{told!r}: {advice}"


def raise_file_limit() -> None:
    """Allow this process MOST_FILES open files, where the system does: each of many hosts or ranks takes one or two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def first_undecoded(words: Iterable[str]) -> str | None:
    """Return the first word whose bytes are not UTF-8, whatever the locale's encoding; None if there is none."""
    for word in words:
        try:
            os.fsencode(word).decode("utf-8")
        except UnicodeDecodeError:
            return word
    return None
