"""Writes status.json for one attempt: while it runs, and when it ends, for any reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ftsys.console.printer import say
from ftsys.errors import DONE, FAILED, STOPPED_EARLY, FtsysError, StorageError
from ftsys.ranks import is_main_rank
from ftsys.run_folder.attempts import errors_after_takeover, highest_attempt
from ftsys.run_folder.status import STATE_OF, read_status_after_crash, write_status


@dataclass
class StatusWriter:
    """Writes the status of one attempt in one run folder.

    `attempt` is known to rank 0 only; it is 0 on the others. `phase` is the current activity and changes with it.
    """

    folder: Path
    attempt: int
    phase: str = "prepare"

    def write(self, exit_status: int | None, reason: str) -> None:
        """Write status.json if this is rank 0, with the step of this attempt's last status. Raises StorageError."""
        if is_main_rank():
            self.write_for_rank_0(exit_status, reason)

    def write_for_rank_0(self, exit_status: int | None, reason: str) -> None:
        """Write status.json as `write` does, on any rank: for the rank that reports the end after rank 0 has died.

        The first end of an attempt is kept.
        """
        former = read_status_after_crash(self.folder)
        mine = former.get("attempt") == self.attempt
        if mine and former.get("exit") is not None:
            return  # a rank that was suspended while the run ended would blame those that left meanwhile
        step = former.get("step", 0) if mine else 0
        state = "running" if exit_status is None else STATE_OF[exit_status]
        write_status(self.folder, state, exit_status, reason, self.phase, step, self.attempt)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Write the exit status when the block ends: 0, or the status of the exception, which is raised again.

        Where a newer attempt has claimed the folder, an error of files is raised as RunFolderError on rank 0.
        """
        try:
            with errors_after_takeover(self.folder, self.attempt):
                yield
        except FtsysError as error:
            self._write_failure(error.exit_status, str(error))
            raise
        except BaseException as error:
            self._write_failure(FAILED, f"{type(error).__name__}: {error}")
            raise
        self.write(DONE, "")

    def _write_failure(self, exit_status: int, reason: str) -> None:
        """Write as `write` does, but only say that the disk refused: the error of the attempt is on its way."""
        try:
            self.write(exit_status, reason)
        except StorageError as error:
            say(f"status.json does not say how this attempt ended: {error}")


def correct_status(folder: Path, before: int, exit_status: int, reason: str) -> None:
    """Write how a start ended, if its own ranks could not: they were killed, or stopped because another rank failed.

    `before`: the run folder's highest attempt before the start. What ranks wrote about an end of their own is kept, and
    so is the status of an attempt that another start has taken since. Raises StorageError.
    """
    attempt, former = highest_attempt(folder), read_status_after_crash(folder)
    mine = former.get("attempt") == attempt
    told = former.get("exit") if mine else None
    if (
        exit_status == DONE
        or attempt != before + 1  # the start took no attempt, or another start has taken the run over
        or (told is not None and (told != STOPPED_EARLY or exit_status == STOPPED_EARLY))
    ):
        return
    phase, step = (former.get("phase", "prepare"), former.get("step", 0)) if mine else ("prepare", 0)
    write_status(folder, STATE_OF.get(exit_status, "failed"), exit_status, reason, phase, step, attempt)
