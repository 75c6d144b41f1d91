"""Writes small files: a reader sees the old content or the new one, never a part.

Each function raises StorageError if the file system reports an error (full, over quota, read-only, gone), with the
OSError as its cause, and leaves no temporary file behind.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ftsys.files.folders import sync_folder
from ftsys.files.json_safe import json_safe
from ftsys.files.storage_errors import storage_errors


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
            with temporary.open(mode.replace("w", "x"), **text) as stream:  # type: ignore[call-overload]  # no literal
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:  # Ctrl-C as well leaves no temporary file
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


def atomic_copy(source: Path, path: Path) -> None:
    """Replace the content of `path` by that of another file, atomically. Raises StorageError, also for `source`."""
    with storage_errors(path), source.open("rb") as content, atomic_open(path, "wb") as stream:
        shutil.copyfileobj(content, stream)
