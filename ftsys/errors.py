"""Errors a user can act on. Each says what is wrong, with which value, and what to do; each carries its exit status."""

from collections.abc import Iterable

DONE, FAILED, BAD_INPUT, STOPPED_EARLY, HUNG, NOT_OURS = 0, 1, 2, 75, 76, 77

EXIT_STATUSES = {
    DONE: "done",
    FAILED: "failed while running",
    BAD_INPUT: "wrong input, found before any device is used: a message, no traceback",
    STOPPED_EARLY: "stopped early by a signal, everything on disk is complete: the same command goes on from there",
    HUNG: "a rank hung",
    NOT_OURS: "the run folder belongs to another run, or to a newer attempt of this one",
}
"""Exit status -> meaning; a page of the documentation is made from it."""


class FtsysError(Exception):
    """Base of all errors that are printed without a traceback."""

    exit_status = FAILED


class ConfigError(FtsysError):
    """A run file, an override or a model that cannot be used as asked for. Several mistakes are reported together."""

    exit_status = BAD_INPUT

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages

    @classmethod
    def raise_if(cls, messages: Iterable[str]) -> None:
        """Raise one error that lists every message, if there is any."""
        found = tuple(messages)
        if found:
            raise cls(*found)


class DataError(FtsysError):
    """A source or a store that cannot be read as what it claims to be."""

    exit_status = BAD_INPUT


class LaunchError(FtsysError):
    """Ranks that cannot be started as asked for."""

    exit_status = BAD_INPUT


class CheckpointError(FtsysError):
    """A checkpoint that is damaged or belongs to something else."""

    exit_status = BAD_INPUT


class StorageError(FtsysError):
    """The disk is full or refuses to be written to while running."""

    exit_status = FAILED


class RunFolderError(FtsysError):
    """The run folder belongs to another run, or to a newer life of this one."""

    exit_status = NOT_OURS


class StoppedEarly(FtsysError):
    """A signal ended the run; everything on disk is complete and the same command goes on from there."""

    exit_status = STOPPED_EARLY
