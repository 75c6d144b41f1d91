"""Locates the cache folder, which holds files that can be made again: stores, copies of models, compiled kernels."""

import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ftsys.errors import ConfigError
from ftsys.files.paths import expanded

_ALL_USERS_ARE_MAPPED = ["0", "0", "4294967295"]
"""Content of /proc/self/uid_map outside any user namespace."""
_OWN_FOLDER = "set FTSYS_CACHE to a folder of your own"


def cache_folder() -> Path:
    """Return the cache folder: $FTSYS_CACHE, else $XDG_CACHE_HOME/ftsys, else ~/.cache/ftsys."""
    own = os.environ.get("FTSYS_CACHE")
    if own:
        return expanded(own)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ftsys"


def download_lease(what: str) -> Path:
    """Return the path of the lease for a download, in the cache folder. Raises ConfigError if that cannot be made."""
    folder = cache_folder() / "downloads"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}). Set FTSYS_CACHE to a folder that can."
        ) from error
    return folder / hashlib.sha256(what.encode()).hexdigest()[:16]


def executable_cache(name: str) -> Path:
    """Return the folder of the cache for files that are executed, such as compiled kernels; make it if needed.

    Each user has one, because a cache folder may be shared. It may be used by its name later: nobody else can replace
    it or a folder above it. Raises ConfigError if somebody else could, and OSError if it cannot be made.
    """
    folder = Path(os.path.realpath(cache_folder())) / f"{name}-{os.getuid()}"
    _make(folder)
    check_private(folder, folder.lstat())
    check_parents(folder)
    return folder


def check_executables(folder: Path, variable: str, levels: int) -> Path:
    """Return a library's folder of files that are executed, without links, if nobody else could change what it holds.

    It is made, where that is possible, so that nobody else can make it first. `variable` names it in the error.
    `levels`: depth of the files and folders in it that are looked at, unless nobody else may enter a folder above it.
    Raises ConfigError if somebody else could write to one of them, or replace the folder.
    """
    real, remedy = Path(os.path.realpath(folder)), f"set {variable} to a folder of your own"
    try:
        _make(real)
    except OSError:  # nothing lies there, and the library itself reports that it cannot write
        return real
    check_parents(folder.absolute(), remedy)
    if not check_parents(real, remedy):
        return real
    for path in (real, *_below(real, levels)):
        with suppress(FileNotFoundError):  # another process has moved its new file into place
            if reason := why_writable(path.lstat()):
                raise ConfigError(f"{str(path)!r} holds code that would be run, but {reason}. Remove it, or {remedy}.")
    return real


def _make(folder: Path) -> None:
    make_parents(folder)
    folder.mkdir(mode=0o700, exist_ok=True)


def _below(folder: Path, levels: int) -> Iterator[Path]:
    """Yield what lies in a folder, to a depth."""
    with suppress(NotADirectoryError, FileNotFoundError):
        for path in folder.iterdir() if levels else ():
            yield path
            if not path.is_symlink():
                yield from _below(path, levels - 1)


def why_writable(found: os.stat_result) -> str:
    """Return why another user than this one and root could write to a file or folder, "" if nobody could."""
    if found.st_uid not in (0, os.getuid()):
        return f"it {_belongs_to(found)}"
    group_may = bool(found.st_mode & stat.S_IWGRP) and not _is_own_group(found.st_gid)
    if (group_may or found.st_mode & stat.S_IWOTH) and not stat.S_ISLNK(found.st_mode):
        return f"other users may write to it (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


def make_parents(path: Path) -> None:
    """Make the missing folders on the way to `path`, to which only this user may write. Raises OSError."""
    for parent in [parent for parent in reversed(path.parents) if not parent.exists()]:
        parent.mkdir(mode=0o755, exist_ok=True)  # the umask may let a group write


def check_private(path: Path, found: os.stat_result) -> None:
    """Raise ConfigError if, by its status `found`, another user than this one and root could change a file or folder.

    Call it before a file is executed. A symbolic link counts as somebody else's file. See `executable_cache` for the
    folders above it.
    """
    if stat.S_ISLNK(found.st_mode):
        reason = "it is a symbolic link"
    elif found.st_uid not in (0, os.getuid()):
        reason = f"it {_belongs_to(found)}"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = f"other users may write to it (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return
    raise ConfigError(f"{str(path)!r} holds code that would be run, but {reason}. Remove it, or {_OWN_FOLDER}.")


def check_parents(path: Path, own_folder: str = _OWN_FOLDER) -> bool:
    """Raise ConfigError if another user could rename what lies on the way to `path`, an absolute path.

    Below a folder that nobody else may enter, nothing needs to be checked; returns False if there is one. `own_folder`
    ends the advice.
    """
    for parent in reversed(path.parents):
        found = parent.stat()
        if reason := _why_replaceable(found):
            raise ConfigError(
                f"{str(path)!r} holds code that would be run, but others could replace it: {str(parent)!r} {reason}. "
                f"Have its owner take these rights away or set the sticky bit (`chmod +t`), or {own_folder}."
            )
        if not found.st_mode & (stat.S_IXGRP | stat.S_IXOTH):
            return False
    return True


def _why_replaceable(found: os.stat_result) -> str:
    """Return why another user than this one and root could rename what is in a folder, "" if nobody could."""
    if found.st_uid not in (0, os.getuid()) and not _is_unmapped(found.st_uid):
        return _belongs_to(found)
    group_may = bool(found.st_mode & stat.S_IWGRP) and not _is_own_group(found.st_gid)
    if (group_may or found.st_mode & stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        return f"may be written to by other users (mode {stat.S_IMODE(found.st_mode):o})"
    return ""


def _belongs_to(found: os.stat_result) -> str:
    return f"belongs to user {found.st_uid}, and you are user {os.getuid()}"


def _is_own_group(group: int) -> bool:
    """Return True for this user's private group, which has the user's name: many systems let it write to new files."""
    try:
        user, found = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return group != 0 and found.gr_name == user and set(found.gr_mem) <= {user}


def _is_unmapped(user: int) -> bool:
    """Return True for the number that stands for all users of the host in a container of this user's, root included."""
    try:
        mapped = Path("/proc/self/uid_map").read_text().split()
        return mapped != _ALL_USERS_ARE_MAPPED and user == int(Path("/proc/sys/kernel/overflowuid").read_text())
    except OSError:
        return False
