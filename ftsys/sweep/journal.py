"""Opens the journal of a sweep: it may end in a line that a full disk has torn, and others may have written it."""

import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from ftsys.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Study

WRONG = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Optuna raises these for a journal that is damaged, depending on what is wrong."""


def open_journal(path: Path) -> JournalStorage:
    """Open a journal, or make it. Raises ConfigError for a link or a pipe, and one of WRONG for a damaged journal."""
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise ConfigError(f"{str(path)!r} is no regular file: use another --output, or remove it.")
    return JournalStorage(JournalFileBackend(str(path), _Lock(path)))


def check_values(study: "Study") -> None:
    """Raise one of WRONG if a trial has a value that is no number, or has ended without one."""
    for trial in study.get_trials(deepcopy=False):
        max(trial.intermediate_values, default=0)
        for value in (*trial.intermediate_values.values(), *([trial.value] if trial.state.name == "COMPLETE" else ())):
            math.isnan(value)  # raises TypeError for what is no number


class _Lock(JournalFileOpenLock):
    """The lock of those who append. Its holder first removes a torn line: joined to the next one, it hides both."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        acquired = super().acquire()
        try:
            _remove_torn_line(self._path)
        except BaseException:  # Ctrl-C as well: nobody else could append any more
            self.release()
            raise
        return acquired


def _remove_torn_line(path: Path) -> None:
    with path.open("rb") as stream:
        if not stream.seek(0, os.SEEK_END):
            return
        stream.seek(-1, os.SEEK_END)
        if stream.read() == b"\n":
            return
    os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
