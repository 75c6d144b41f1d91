"""Writing small files so that a reader sees the old content or the new one, never half of it.

Every function here raises StorageError when the file system refuses (full, over quota, read-only, gone), with the
OSError as its cause, and leaves no temporary file behind.
"""

import errno
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ftsys.errors import StorageError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "the file grew too large"}


def storage_error(path: Path | str, error: OSError) -> StorageError:
    """The StorageError that tells of `error` met while writing `path`. Set `error` as its cause when raising."""
    if error.errno in _FULL:
        return StorageError(f"cannot write {str(path)!r}: {_FULL[error.errno]}. Free some space and start again.")
    reason = error.strerror or str(error)
    return StorageError(f"cannot write {str(path)!r}: {reason}. Check the folder and its rights, then start again.")


@contextmanager
def storage_errors(path: Path | str) -> Iterator[None]:
    """Turn any OSError of the block, which writes to `path`, into a StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


@contextmanager
def atomic_open(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """A stream whose content becomes `path` when the block ends without an exception; otherwise `path` stays as it was.

    `mode` is "w" (UTF-8, line ends kept as written) or "wb". The content is synced before the rename, the folder after
    it, so that the new name never points at missing bytes after a crash. The parent folder is made if it is missing.
    Raises StorageError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
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
    """Make `text` the content of `path`, at once. Raises StorageError."""
    with atomic_open(path) as stream:
        stream.write(text)


def atomic_write_json(path: Path | str, value: object) -> None:
    """Make `value` the content of `path`, at once, as strict JSON (see `json_safe`). Raises StorageError."""
    atomic_write_text(path, json.dumps(json_safe(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_folder(folder: Path | str) -> None:
    """Make renames and removals inside `folder` survive a power cut. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder; they order renames themselves
            raise
    finally:
        os.close(handle)


def json_safe(value: object) -> Any:
    """`value` with what JSON lacks replaced: NaN and infinities by null, NumPy scalars and arrays by numbers and lists,
    paths by strings, tuples and sets by lists (sets sorted). Raises TypeError for anything else JSON cannot hold.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return [json_safe(item) for item in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [json_safe(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, torch tensors: without importing either
        return json_safe(value.tolist())
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")
