"""Changes real files at random and reads them: a reader returns, or raises the error that it documents.

`FTSYS_FUZZ_EXAMPLES=100000 pytest tests/fuzz` tries that many files for each reader; `make test` tries a few. Each
finding becomes a row of FOUND.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fuzz.more_readers import all_readers
from tests.fuzz.mutations import Edit, changed, edits
from tests.fuzz.reading import read, read_in_new_folder
from tests.fuzz.samples import parquet, parquet_without_utf8

EXAMPLES = int(os.environ.get("FTSYS_FUZZ_EXAMPLES", "40"))

HEADER = b'{"w":{"dtype":"F32","data_offsets":[0,24]}}'
FOUND = [
    ("JSON lines", b"[" * 3_000 + b'{"text": "a", "label": "up"}'),
    ("index of weights", b'{"weight_map": {"w": "model-' + b"9" * 400 + b'.safetensors"}}'),
    ("index of weights", b'{"weight_map": {"w": "\\ud800"}}'),
    ("Parquet", parquet_without_utf8()),
    ("Parquet", parquet().replace(b"text", b"t\x9bxt")),
    ("owner", b'{"identity": {}, "first_attempt": Infinity}'),
    ("metrics log", b'{"step": Infinity, "attempt": 1}'),
    ("metrics log", b'{"step": 1, "attempt": 1, "split": [null]}'),
    ("metrics log", b'{"step": 1, "attempt": 2, "resumed_at": "x"}\n{"step": 1, "attempt": 1}\n'),
    ("exit of a start", b'{"attempt": "1", "exit": 0}'),
    ("table of runs", b'{"task": "mrpc", "model": "m", "metrics": {}, "attempt": 1}'),
    ("table of runs", b'{"task": "mrpc", "model": "m", "seed": Infinity, "metrics": {}, "attempt": 1}'),
    ("scored Parquet", parquet().replace(b"text", b"t\x9bxt")),
    ("report of a log", b'{"step": ' + b"9" * 400 + b', "attempt": 1, "loss": 0.25, "split": "validation"}'),
    ("CSV of several labels", b'text,label\na,"[up, ' + b"9" * 5_000 + b']"'),
    ("CSV of several labels", b"text,label\na,up;" + b"9" * 5_000),
    ("run file above a recipe", b'[task]\nname = ["mood"]'),
    ("run file above a recipe", b"train = 3\n[task]\nname = {mood = 1}"),
    ("parameters of a model", len(HEADER).to_bytes(8, "little") + HEADER),
]
"""(reader, content): files that once ended in another error."""


@pytest.mark.parametrize("name", all_readers())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=DirectoryBasedExampleDatabase(".hypothesis"),
    suppress_health_check=list(HealthCheck),
)
@given(made=edits())
def test_a_changed_file_ends_in_a_documented_error(name: str, made: list[Edit]) -> None:
    reader = all_readers()[name]
    read_in_new_folder(reader, changed(reader.content, made))


@pytest.mark.parametrize("name", all_readers())
def test_the_unchanged_file_is_read(name: str, tmp_path: Path) -> None:
    reader = all_readers()[name]
    read(reader, reader.content, tmp_path)


@pytest.mark.parametrize(("name", "content"), FOUND)
def test_what_was_found_stays_mended(name: str, content: bytes, tmp_path: Path) -> None:
    read(all_readers()[name], content, tmp_path)
