"""Reads paths as people write them, and finds out early where nothing can be written."""

import errno
from pathlib import Path

from ftsys.errors import ConfigError


def expanded(path: Path | str) -> Path:
    """Return a path with the home folder in place of "~" or "~name"; one of an unknown user stays as it is."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):  # no such user, or a name that no user can have
        return Path(path)


def there(path: Path) -> bool:
    """Return True if a file or folder is at `path`. For a name that is too long, which pathlib refuses: False."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def check_output(flag: str, path: Path, folder: bool = False) -> None:
    """Find out before the work that its result cannot be written to `path`, the value of `flag`.

    Raises ConfigError for a folder, for a file where a `folder` is due, for a place below a file, and for a file that
    is none: a link, a pipe or a device would be replaced.
    """
    try:
        if not folder and path.is_dir():
            raise ConfigError(f"{flag} {str(path)!r} is a folder: name a file.")
        if not folder and (path.is_symlink() or (path.exists() and not path.is_file())):
            raise ConfigError(f"{flag} {str(path)!r} is a link, a pipe or a device: name the file itself.")
        places = [path, *path.absolute().parents][0 if folder else 1 :]
        nearest = next(place for place in places if place.exists())
        if not nearest.is_dir():
            raise ConfigError(f"{flag} {str(path)!r} cannot be made: {str(nearest)!r} is a file. Name another place.")
    except OSError as error:
        raise ConfigError(f"{flag} {str(path)!r} cannot be made ({error.strerror}). Name another place.") from error
