"""Reads paths as people write them, and writes small files: a reader sees the old content or the new one, never a part.

Each function that writes raises StorageError if the file system reports an error (full, over quota, read-only, gone),
with the OSError as its cause, and leaves no temporary file behind.
"""

import csv
import errno
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ftsys.errors import ConfigError, StorageError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "the file grew too large"}


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


def check_output(flag: str, path: Path, folder: bool = False) -> None:
    """Find out before the work that its result cannot be written to `path`, the value of `flag`.

    Raises ConfigError for a folder, for a file where a `folder` is due, and for a place below a file.
    """
    try:
        if not folder and path.is_dir():
            raise ConfigError(f"{flag} {str(path)!r} is a folder: name a file.")
        places = [path, *path.absolute().parents][0 if folder else 1 :]
        nearest = next(place for place in places if place.exists())
        if not nearest.is_dir():
            raise ConfigError(f"{flag} {str(path)!r} cannot be made: {str(nearest)!r} is a file. Name another place.")
    except OSError as error:
        raise ConfigError(f"{flag} {str(path)!r} cannot be made ({error.strerror}). Name another place.") from error


@contextmanager
def storage_errors(path: Path | str, advice: str = "") -> Iterator[None]:
    """Turn an OSError of the block, which writes to `path`, into a StorageError (see `storage_error`)."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error, advice) from error


@contextmanager
def atomic_open(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a stream whose content replaces `path` when the block ends; after an exception `path` is unchanged.

    `mode` is "w" (UTF-8, line ends are kept as written) or "wb". The content is synced before the rename and the folder
    after it, so that the new name never points at missing bytes after a crash. A missing parent folder is made.
    Raises StorageError.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open(mode.replace("w", "x"), **text) as stream:  # type: ignore[call-overload]
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Replace the content of `path` by `text`, atomically. Raises StorageError."""
    with atomic_open(path) as stream:
        stream.write(text)


def atomic_write_json(path: Path | str, value: object) -> None:
    """Replace the content of `path` by `value` as strict JSON (see `json_safe`), atomically. Raises StorageError."""
    atomic_write_text(path, json.dumps(json_safe(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class _LineFeeds:
    """Takes the rows of a `csv.writer`, which end with CR LF, and writes them with LF alone."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, row: str) -> None:
        self._stream.write(f"{row[:-2]}\n")


def write_csv(stream: IO[str], rows: Iterable[Iterable[object]], delimiter: str = ",") -> None:
    """Write rows as lines that end with LF; a field with a line break of any kind is quoted.

    Before Python 3.11.9, `csv.writer` quotes only those line breaks that end its rows.
    """
    csv.writer(_LineFeeds(stream), delimiter=delimiter, lineterminator="\r\n").writerows(rows)


def atomic_copy(source: Path, path: Path) -> None:
    """Replace the content of `path` by that of another file, atomically. Raises StorageError, also for `source`."""
    with storage_errors(path), source.open("rb") as content, atomic_open(path, "wb") as stream:
        shutil.copyfileobj(content, stream)


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


def json_safe(value: object, finite: bool = True) -> Any:
    """Return `value` with everything that JSON lacks replaced.

    NaN and infinities become None (null), unless `finite` is False; NumPy scalars and arrays numbers and lists, paths
    strings, tuples and sets lists (sets sorted). Raises TypeError for any other value that JSON cannot hold.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) or not finite else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item, finite) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return [json_safe(item, finite) for item in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [json_safe(item, finite) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, torch tensors: without importing either
        return json_safe(value.tolist(), finite)
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")
