"""Locates the cache folder, which holds files that can be made again: stores, copies of models, compiled kernels."""

import os
import stat
from pathlib import Path

from ftsys.errors import ConfigError


def cache_folder() -> Path:
    """Return the cache folder: $FTSYS_CACHE, else $XDG_CACHE_HOME/ftsys, else ~/.cache/ftsys."""
    own = os.environ.get("FTSYS_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ftsys"


def executable_cache(name: str) -> Path:
    """Return the folder of the cache for files that are executed, such as compiled kernels; make it if needed.

    Each user has one, because a cache folder may be shared. Raises ConfigError if somebody else could write to it, and
    OSError if it cannot be made.
    """
    folder = cache_folder() / f"{name}-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder, folder.lstat())
    return folder


def check_private(path: Path, found: os.stat_result) -> None:
    """Raise ConfigError if, by its status `found`, another user than this one and root could change a file or folder.

    Call it before a file is executed. A symbolic link counts as somebody else's file.
    """
    if stat.S_ISLNK(found.st_mode):
        reason = "it is a symbolic link"
    elif found.st_uid not in (0, os.getuid()):
        reason = f"it belongs to user {found.st_uid}, and you are user {os.getuid()}"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = f"other users may write to it (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return
    raise ConfigError(
        f"{str(path)!r} holds code that would be run, but {reason}. "
        "Remove it, or set FTSYS_CACHE to a folder of your own."
    )
