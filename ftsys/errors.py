"""Defines the errors that a user can correct, and their exit statuses.

Each message names the problem, the value and the remedy.
"""

from collections.abc import Iterable

DONE, FAILED, BAD_INPUT, STOPPED_EARLY, HUNG, NOT_OURS, INTERRUPTED = 0, 1, 2, 75, 76, 77, 130

EXIT_STATUSES = {
    DONE: "done",
    FAILED: "failed while running",
    BAD_INPUT: "wrong input, found before any device is used: a message, no traceback",
    STOPPED_EARLY: "stopped early by a signal with all files complete: the same command resumes the run",
    HUNG: "a rank hung",
    NOT_OURS: "the run folder belongs to another run, or to a newer attempt of this one",
    INTERRUPTED: "ended by Ctrl-C where there was nothing to save: before a training, or in another command",
}
"""The meaning of each exit status; --help and a page of the documentation are made from it."""


def is_of_signal(status: int) -> bool:
    """Return True for the status of a process that a signal ended: -N, or 128 + N where a shell was in between."""
    return status < 0 or 128 < status <= 128 + 64


class FtsysError(Exception):
    """Base class of all errors that are printed without a traceback."""

    exit_status = FAILED
    told = False
    """True on an error that this rank has printed, or that every rank raises, so that rank 0 prints it for all."""


class ConfigError(FtsysError):
    """A run file, an override or a model cannot be used as requested. Several mistakes are reported together."""

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
    """A data source or a store cannot be read, or its content is wrong."""

    exit_status = BAD_INPUT


class LaunchError(FtsysError):
    """The ranks cannot be started as requested."""

    exit_status = BAD_INPUT


class CheckpointError(FtsysError):
    """A checkpoint is damaged or belongs to another run."""

    exit_status = BAD_INPUT


class StorageError(FtsysError):
    """A file cannot be written while running, for example because the disk is full."""

    exit_status = FAILED


class RunFolderError(FtsysError):
    """The run folder belongs to another run, or to a newer attempt of this run."""

    exit_status = NOT_OURS


class DamagedError(RunFolderError):
    """A file of a run folder is damaged or only half written, and the command needs it."""

    exit_status = BAD_INPUT


class StoppedEarly(FtsysError):
    """A signal stopped the run. All files are complete, and the same command resumes the run."""

    exit_status = STOPPED_EARLY


def error_as_words(error: FtsysError) -> list[str]:
    """Return the name of an error's class and its message, as `error_from_words` on another rank takes them."""
    return [next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _kinds()), str(error)]


def error_from_words(name: str, message: str) -> FtsysError:
    """Return the error of the class of this module with that name; an FtsysError where there is no such class."""
    return _kinds().get(str(name), FtsysError)(str(message))


def _kinds() -> dict[str, type[FtsysError]]:
    """Return the classes of this module by name: no other one is made from what another process has sent."""
    return {name: kind for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, FtsysError)}
