"""Removes files and folders, and syncs them to the disk."""

import errno
import os
import shutil
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, a file, or a link but not its target. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
