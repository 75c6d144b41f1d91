"""Hashes files and values, seals JSON files with their own checksum, and finds damaged files."""

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftsys.files.folders import files_below
from ftsys.files.untrusted import NOT_REGULAR, FileEntry, json_object, open_regular

PIECE_BYTES = 1 << 24
"""Bytes that are hashed, and written, at once."""

_hashed = 0


def bytes_hashed() -> int:
    """Return how many bytes this process has hashed so far. While it grows, a slow disk is not a hang."""
    return _hashed


def _update(digest: "hashlib._Hash", piece: bytes | memoryview) -> None:
    global _hashed
    digest.update(piece)
    _hashed += len(piece)


class HashedFile:
    """Writes a new file, counts and hashes its bytes, and syncs it to the disk before it closes."""

    def __init__(self, path: Path) -> None:
        self.name, self.size = path.name, 0
        self._hash = hashlib.sha256()
        self._stream = path.open("xb")

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        for begin in range(0, len(data), PIECE_BYTES):
            piece = memoryview(data)[begin : begin + PIECE_BYTES]
            self._stream.write(piece)
            _update(self._hash, piece)
        self.size += len(data)

    def close(self) -> None:
        """Flush to the disk and close."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abandon(self) -> None:
        """Close without syncing; the file must not be used."""
        self._stream.close()

    @property
    def entry(self) -> FileEntry:
        """The file's manifest entry."""
        return {"bytes": self.size, "sha256": self._hash.hexdigest()}


@contextmanager
def hashed_file(path: Path) -> Iterator[HashedFile]:
    """Open a `HashedFile`, and sync it when the block ends without an exception. OSError is passed on."""
    file = HashedFile(path)
    try:
        yield file
        file.close()
    except BaseException:
        # On a full disk this close fails too. The first error is the one to report.
        with suppress(OSError):
            file.abandon()
        raise


def written_file(path: Path) -> FileEntry:
    """Sync a file that another library wrote, and return its manifest entry."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def damage_of(folder: Path, files: Mapping[str, FileEntry], contents: bool = True) -> list[str]:
    """Compare files with their manifest entries, and return one message for each file that differs.

    A file differs if it is missing, is a folder, a pipe or a device, has another size or, with `contents`, has other
    bytes. `files` maps names in `folder` to entries.
    """
    return [
        f"{folder / name} {wrong}"
        for name, entry in sorted(files.items())
        if (wrong := _difference(folder / name, entry, contents))
    ]


def _difference(path: Path, entry: FileEntry, contents: bool) -> str:
    try:
        size = regular_size(path)
        if size != entry["bytes"]:
            return f"has {size} bytes instead of {entry['bytes']}"
        damaged = contents and sha256_of(path) != entry["sha256"]
        return "is damaged: its sha256 is not the manifest's" if damaged else ""
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', '') or error}"


def regular_size(path: Path) -> int:
    """Return the size of a file in bytes without opening it. Raises OSError; ValueError for no regular file."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(NOT_REGULAR)
    return found.st_size


def unlisted(folder: Path, listed: Collection[str], below: Iterable[str] = ("",)) -> list[str]:
    """Return what is in the folders `below` of `folder` and not in `listed`, sorted: all but plain folders.

    A link counts, also one to a folder: a library would follow it. `below` and `listed` are paths in `folder`.
    """
    found = (path for part in below for path in files_below(folder / part))
    return sorted({path.relative_to(folder).as_posix() for path in found}.difference(listed))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits. Raises as `open_regular` does."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(PIECE_BYTES))
    with open_regular(path) as stream:
        while size := stream.readinto(piece):
            _update(digest, piece[:size])
    return digest.hexdigest()


def canonical_json(value: object) -> bytes:
    """Serialize a JSON value in its only canonical form: sorted keys, no spaces, ASCII. ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def fingerprint_of(value: object) -> str:
    """Return the sha256 of a JSON value's canonical bytes as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


@dataclass(frozen=True)
class SealedJson:
    """A file format: a JSON object with a checksum of its other fields, so that a reader finds any changed byte.

    `checksum_field` names the field that holds the sha256 of the other fields' JSON text, with sorted keys and
    `hashed_separators`. `order` sets the order of the fields in the file: with "given" and "sorted" the checksum is the
    last field, with "all_sorted" it is sorted among the others. `indent` is in spaces; None writes one line without
    spaces.
    """

    checksum_field: str
    order: Literal["given", "sorted", "all_sorted"]
    indent: int | None = None
    hashed_separators: tuple[str, str] = (",", ":")

    def seal(self, fields: Mapping[str, Any]) -> bytes:
        """Return the only bytes that a file of these fields may have."""
        hashed = json.dumps(fields, sort_keys=True, separators=self.hashed_separators)
        first = json.loads(hashed) if self.order == "sorted" else fields
        sealed = {**first, self.checksum_field: hashlib.sha256(hashed.encode()).hexdigest()}
        separators = (",", ":") if self.indent is None else None
        text = json.dumps(sealed, sort_keys=self.order == "all_sorted", indent=self.indent, separators=separators)
        return f"{text}\n".encode()

    def parse(self, data: bytes) -> tuple[dict[str, Any], bool]:
        """Return the fields without the checksum, and True if `data` is exactly what `seal` makes of them.

        Raises ValueError for data that is not a JSON object.
        """
        fields = json_object(data)
        fields.pop(self.checksum_field, None)
        try:
            return fields, data == self.seal(fields)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
