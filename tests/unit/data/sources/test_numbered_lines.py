"""A file's lines are counted and its bytes hashed in chunks, whatever the size of a chunk."""

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from ftsys.data.sources import numbered_lines
from ftsys.data.sources.json_files import json_items
from ftsys.data.sources.numbered_lines import csv_records
from ftsys.errors import DataError


@pytest.mark.parametrize(
    ("content", "lines"), [("a\nb", 2), ("a\n\n\nb\n\n\n", 4), ("a\r\nb\r\n\r\n", 2), ("\n\n", 0), ("a", 1)]
)
@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_lines_are_counted_across_the_chunks_they_are_read_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, lines: int, chunk: int
) -> None:
    monkeypatch.setattr(numbered_lines, "_CHUNK", chunk)
    (tmp_path / "t").write_bytes(content.encode())
    assert numbered_lines.scan(tmp_path / "t")[:2] == (hashlib.sha256(content.encode()).hexdigest(), lines)


LIMIT = numbered_lines.LONGEST
LONG = {
    "a line of a table": (
        "t.csv",
        b"a,b\nx,1\n" + b"x" * LIMIT + b",2\n",
        r"t\.csv, line 3: more than 4,194,304 bytes",
    ),
    "a file without line ends": ("t.csv", b"a,b," * LIMIT, r"t\.csv, line 1: more than 4,194,304 bytes"),
    "a quote never closed": (
        "t.csv",
        b'a,b\nx,1\n"y,2\n' + b"z,3\n" * LIMIT,
        r"t\.csv, line 3: broken CSV \(more than",
    ),
    "many fields": ("t.csv", b'a,b\nx,1\n"y\n",' + b'"z\n",' * LIMIT, r"t\.csv, line 3: broken CSV \(more than"),
    "a line of JSON": (
        "t.jsonl",
        b'{"a": 1}\n{"a": "' + b"x" * LIMIT + b'"}\n',
        r"t\.jsonl, line 2: more than 4,194,304",
    ),
    "a row of an array": (
        "t.json",
        b'[{"a": 1}, {"a": "' + b"x" * LIMIT + b'"}]',
        r"t\.json, row 2: .*\(it has more than",
    ),
    "a row without an end": ("t.json", b'[{"a": 1}, {"a": "' + b"x" * 20 * LIMIT, r"t\.json, row 2: .*\(Unterminated"),
}


@pytest.mark.parametrize(("name", "content", "said"), LONG.values(), ids=LONG)
def test_a_row_has_at_most_so_many_bytes(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    rows = csv_records(tmp_path / name) if name == "t.csv" else json_items(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(DataError, match=said):
        list(rows)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 * LIMIT, "memory grows with the row"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_a_row_just_within_the_limit_is_read(tmp_path: Path, name: str) -> None:
    around = {"t.csv": (b"", b",2\n"), "t.jsonl": (b'{"a": "', b'"}\n'), "t.json": (b'{"a": "', b'"}')}[name]
    row = around[0] + b"x" * (LIMIT - sum(map(len, around))) + around[1]
    (tmp_path / name).write_bytes(b"[" + row + b", {}]" if name == "t.json" else row + row)
    rows = list(csv_records(tmp_path / name) if name == "t.csv" else json_items(tmp_path / name))
    assert len(rows) == 2
