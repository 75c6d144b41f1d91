"""Gives a reader a file of any content, and lets pass the errors that it documents."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from ftsys.errors import FtsysError
from tests.fuzz.readers import Reader


def read_in_new_folder(reader: Reader, content: bytes) -> None:
    """Read a changed file in a folder of its own; a reader of sealed files gets it with a right checksum."""
    made = content if reader.sealed is None else sealed(reader, content)
    if made is not None:
        with tempfile.TemporaryDirectory() as folder:
            read(reader, made, Path(folder))


def read(reader: Reader, content: bytes, folder: Path) -> None:
    """Write the file and read it. Raises whatever is not an FtsysError."""
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, beside in reader.beside.items():
        (folder / name).write_bytes(beside)
    path.write_bytes(content)
    with suppress(FtsysError):
        reader.read(path)


def sealed(reader: Reader, content: bytes) -> bytes | None:
    """Make the checksum of a changed JSON right; None if the change left no JSON object to seal."""
    assert reader.sealed is not None
    try:
        value = json.loads(content)
        return reader.sealed.seal(value) if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None
