"""Hashes files and values, and finds damage by comparing with what was recorded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class HashedFile:
    """A new file that counts and hashes what is written to it, and reaches the disk before it closes."""

    def __init__(self, path: Path) -> None:
        self.name, self.size = path.name, 0
        self._hash = hashlib.sha256()
        self._stream = path.open("xb")

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._stream.write(data)
        self._hash.update(data)
        self.size += len(data)

    def close(self) -> None:
        """Flush to the disk and close."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abandon(self) -> None:
        """Close without a promise."""
        self._stream.close()

    @property
    def entry(self) -> dict[str, Any]:
        """The file's line in the manifest."""
        return {"bytes": self.size, "sha256": self._hash.hexdigest()}


@contextmanager
def hashed_file(path: Path) -> Iterator[HashedFile]:
    """A `HashedFile` that is flushed when the block ends well."""
    file = HashedFile(path)
    try:
        yield file
        file.close()
    except BaseException:
        # A full disk refuses the flush of this close too; the first error is the one to hear.
        with suppress(OSError):
            file.abandon()
        raise


def written_file(path: Path) -> dict[str, Any]:
    """The manifest entry of a file that another library wrote, once its bytes have reached the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def damage_of(folder: Path, files: Mapping[str, Mapping[str, Any]], contents: bool = True) -> list[str]:
    """What is wrong with the named files: missing, of another size, or, with `contents`, of other bytes."""
    found = []
    for name, entry in sorted(files.items()):
        path = folder / name
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                found.append(f"{path} has {size} bytes instead of {entry['bytes']}")
            elif contents and sha256_of(path) != entry["sha256"]:
                found.append(f"{path} is damaged: its sha256 is not the manifest's")
        except OSError as error:
            found.append(f"{path} cannot be read: {error.strerror}")
    return found


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: object) -> bytes:
    """The one byte string that stands for a JSON value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def fingerprint_of(value: object) -> str:
    """Hex sha256 of a JSON value's canonical bytes."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes; OSError as it comes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
