"""Says what a file system reports: full, over quota, read-only, gone."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftsys.errors import StorageError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "the file grew too large"}


def is_full(error: OSError) -> bool:
    """Return True if the error says that the disk is full or the user's quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def storage_error(path: Path | str, error: OSError, advice: str = "") -> StorageError:
    """Return a StorageError for an `error` that occurred while writing `path`. Raise it with `error` as its cause.

    `advice` tells the user what to do; without it, the message gives the general advice for this kind of error.
    """
    reason = error.strerror or str(error)
    if advice:
        problem = "the disk is full" if is_full(error) else f"cannot be written ({reason})"
        return StorageError(f"{path}: {problem}. {advice}")
    if error.errno in _FULL:
        return StorageError(f"cannot write {str(path)!r}: {_FULL[error.errno]}. Free some space and start again.")
    return StorageError(f"cannot write {str(path)!r}: {reason}. Check the folder and its rights, then start again.")


@contextmanager
def storage_errors(path: Path | str, advice: str = "") -> Iterator[None]:
    """Turn an OSError of the block, which writes to `path`, into a StorageError (see `storage_error`)."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error, advice) from error
