"""Saves how much of a split's file is on the disk, so that the next process need not tokenize those rows again.

Beside `train.arrow`, `train.arrow.part.json` tells the size and the hash of a prefix of it that was synced. The prefix
holds the schema and whole record batches. A writer only appends, so the prefix stays as it is even while one runs.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ftsys.files.atomic import atomic_write_json
from ftsys.files.untrusted import file_bytes, parse_json, typed

SUFFIX = ".part.json"
_BLOCK = 1 << 24

Rows = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]
"""Tokens (T,), and of S examples their lengths, first lengths and labels."""


@dataclass(frozen=True)
class Prefix:
    """The first `size` bytes of a split's file, which hold its first `rows` rows."""

    rows: int
    size: int
    sha256: str


def save_prefix(file: Path, prefix: Prefix) -> None:
    """Note a prefix of `file` that has been synced. Raises StorageError."""
    atomic_write_json(_note(file), asdict(prefix))


def remove_notes(folder: Path) -> None:
    """Remove the notes of a folder whose files are complete."""
    for note in folder.glob(f"*{SUFFIX}"):
        note.unlink()


def saved_rows(folder: Path) -> int:
    """Return the number of rows that the notes in a folder tell."""
    prefixes = (_prefix(note.with_name(note.name.removesuffix(SUFFIX))) for note in folder.glob(f"*{SUFFIX}"))
    return sum(prefix.rows for prefix in prefixes if prefix is not None)


def fullest(folders: Iterable[Path]) -> Path | None:
    """Return the folder with the most saved rows; None if no folder has any."""
    rows = {folder: saved_rows(folder) for folder in folders}
    return max((folder for folder in rows if rows[folder]), key=rows.__getitem__, default=None)


def read_saved(file: Path) -> Iterator[Rows]:
    """Yield the record batches of the noted prefix of `file`; none if there is no note, or the bytes have changed."""
    prefix = _prefix(file)
    if prefix is None:
        return
    try:
        stream = file.open("rb")
    except OSError:  # its writer was alive, and has finished or removed the store: the rows are tokenized again
        return
    with stream:
        if _hash_of(stream, prefix.size) == prefix.sha256:
            stream.seek(0)
            yield from _first_rows(stream, prefix.rows)


def _first_rows(stream: BinaryIO, count: int) -> Iterator[Rows]:
    """Yield the record batches with the first `count` rows; what follows them may be half written."""
    for batch in pa.ipc.open_stream(stream):
        _, ids, first_lengths, labels = batch.columns
        yield ids.values.to_numpy(), np.diff(ids.offsets.to_numpy()), first_lengths.to_numpy(), _labels(labels)
        count -= batch.num_rows
        if count <= 0:
            return


def _labels(column: pa.Array) -> npt.NDArray[Any]:
    if isinstance(column, pa.FixedSizeListArray):
        return column.values.to_numpy().reshape(-1, column.type.list_size)
    return column.to_numpy()


def _note(file: Path) -> Path:
    return file.with_name(file.name + SUFFIX)


def _prefix(file: Path) -> Prefix | None:
    """Return the note of a file; None if there is none that can be used: its rows are tokenized again."""
    try:
        return typed(Prefix, parse_json(file_bytes(_note(file))))
    except (OSError, ValueError):
        return None


def _hash_of(stream: BinaryIO, size: int) -> str:
    """Return the hash of the first `size` bytes; "" for a file that is shorter."""
    found, left = hashlib.sha256(), size
    while left > 0 and (block := stream.read(min(_BLOCK, left))):
        found.update(block)
        left -= len(block)
    return found.hexdigest() if left == 0 else ""
