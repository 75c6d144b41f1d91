"""Changes real files at random and reads them: a reader returns, or raises the error that it documents.

`FTSYS_FUZZ_EXAMPLES=100000 pytest tests/fuzz` tries that many files for each reader; `make test` tries a few. Each
finding becomes a row of FOUND.
"""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from ftsys.errors import FtsysError
from tests.fuzz.mutations import Edit, changed, edits
from tests.fuzz.readers import Reader, readers
from tests.fuzz.samples import parquet_without_utf8

EXAMPLES = int(os.environ.get("FTSYS_FUZZ_EXAMPLES", "40"))

FOUND = [
    ("JSON lines", b"[" * 3_000 + b'{"text": "a", "label": "up"}'),
    ("index of weights", b'{"weight_map": {"w": "model-' + b"9" * 400 + b'.safetensors"}}'),
    ("index of weights", b'{"weight_map": {"w": "\\ud800"}}'),
    ("Parquet", parquet_without_utf8()),
]
"""(reader, content): files that once ended in another error."""


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


@pytest.mark.parametrize("name", readers())
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(made=edits())
def test_a_changed_file_ends_in_a_documented_error(name: str, made: list[Edit]) -> None:
    reader = readers()[name]
    content: bytes | None = changed(reader.content, made)
    if reader.sealed is not None and content is not None:
        content = sealed(reader, content)
    if content is not None:
        with tempfile.TemporaryDirectory() as folder:
            read(reader, content, Path(folder))


@pytest.mark.parametrize("name", readers())
def test_the_unchanged_file_is_read(name: str, tmp_path: Path) -> None:
    reader = readers()[name]
    read(reader, reader.content, tmp_path)


@pytest.mark.parametrize(("name", "content"), FOUND)
def test_what_was_found_stays_mended(name: str, content: bytes, tmp_path: Path) -> None:
    read(readers()[name], content, tmp_path)
