"""Compares the files of a store with its index."""

import os
from pathlib import Path

from ftsys.data.store.index import INDEX_NAME, SplitIndex, StoreIndex, damaged
from ftsys.errors import DataError
from ftsys.files.integrity import regular_size, sha256_of, unlisted


def check_size(path: Path, split: SplitIndex) -> None:
    """Raise DataError for a split's file that is missing, or has another size than the index says."""
    try:
        size = regular_size(path)
    except (OSError, ValueError) as error:
        raise damaged(path, f"cannot be read ({getattr(error, 'strerror', '') or error})") from error
    if size != split.size or not size:  # an Arrow file without rows has its schema
        raise damaged(path, f"{size} bytes where {split.size} were written" if size else "it is empty")


def verify_store(path: "str | os.PathLike[str]") -> list[str]:
    """Compare every byte of a store with its index; return a message for each damaged file, or none.

    A file that the index does not list counts too. Running processes have no file there: a store is written in a folder
    of its own, and leases lie beside it.
    """
    folder = Path(path)
    try:
        index = StoreIndex.read(folder)
    except DataError as error:
        return [str(error)]
    found = []
    for split in index.splits.values():
        file = folder / split.file
        try:
            check_size(file, split)
        except DataError as error:
            found.append(str(error))
            continue
        if sha256_of(file) != split.sha256:
            found.append(str(damaged(file, "its sha256 is not the one in index.json")))
    listed = {INDEX_NAME, *(split.file for split in index.splits.values())}
    return found + [
        f"{folder / name} is not in {INDEX_NAME}: remove it, or keep it elsewhere" for name in unlisted(folder, listed)
    ]
