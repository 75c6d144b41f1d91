"""Lists and removes what is in folders, and syncs it to the disk."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_REMOVALS = 100
"""Times that a folder is removed again because another process changes it meanwhile."""


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all that is below a folder and no folder itself: a link to one too. A missing folder has nothing below.

    Another process may remove files and folders meanwhile. Raises OSError for a folder that cannot be read.
    """

    def is_gone(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise error

    for parent, folders, names in os.walk(folder, onerror=is_gone):
        paths = (Path(parent, name) for name in (*folders, *names))
        yield from (path for path in paths if path.is_symlink() or not path.is_dir())


def bytes_below(folder: Path) -> int:
    """Return the size of all files below a folder, while another process may remove some. Raises OSError."""
    total = 0
    for path in files_below(folder):
        with suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, a file, or a link but not its target. Raises OSError.

    Another process may remove the same files, or add some, at the same time.
    """
    for left in reversed(range(_REMOVALS)):
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
            return
        try:
            shutil.rmtree(path)
        except OSError as error:
            if left == 0 or error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise


def sync_folder(folder: Path | str) -> None:
    """Sync a folder (or a file), so that renames and removals in it survive a power cut. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder: they order renames themselves
            raise
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Sync a file, or a folder with all that is in it, before it gets the name by which others find it. OSError."""
    for each in (path, *path.rglob("*")):
        if not each.is_symlink():
            sync_folder(each)
