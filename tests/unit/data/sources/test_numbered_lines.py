"""A file's lines are counted and its bytes hashed in chunks, whatever the size of a chunk."""

import hashlib
from pathlib import Path

import pytest

from ftsys.data.sources import numbered_lines


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
