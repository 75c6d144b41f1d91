"""What status.json says of a life while it runs and when it ends, however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ftsys.errors import DONE, FAILED, FtsysError, RunFolderError
from ftsys.ranks import is_main_rank
from ftsys.run_folder.status import STATE_OF, read_status, write_status


@dataclass
class Journal:
    """The run folder, this life's attempt in it, and what it is doing. Only rank 0 knows the attempt."""

    folder: Path
    attempt: int
    phase: str = "prepare"

    def write(self, exit_status: int | None, reason: str) -> None:
        """Write status.json on rank 0; the step is the last one that it told of."""
        if is_main_rank():
            self.write_for_rank_0(exit_status, reason)

    def write_for_rank_0(self, exit_status: int | None, reason: str) -> None:
        """As `write`, by whichever rank speaks for the run once rank 0 is gone."""
        try:
            former = read_status(self.folder)
        except RunFolderError:  # damaged, and about to be written anew
            former = None
        step = former.step if former is not None and former.attempt == self.attempt else 0
        state = "running" if exit_status is None else STATE_OF[exit_status]
        write_status(self.folder, state, exit_status, reason, self.phase, step, self.attempt)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Write how the block ended. A failure of any other kind than FtsysError keeps its traceback."""
        try:
            yield
        except FtsysError as error:
            self.write(error.exit_status, str(error))
            raise
        except BaseException as error:
            self.write(FAILED, f"{type(error).__name__}: {error}")
            raise
        self.write(DONE, "")
