"""Parquet files in which many rows refer to one long text: a few kilobytes that would be gigabytes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftsys.data.sources.numbered_lines import LONGEST
from ftsys.data.sources.parquet_files import MOST_TEXT, parquet_batches
from ftsys.data.sources.source import open_source
from ftsys.errors import DataError
from ftsys.score.readers.arrow import ParquetReader
from ftsys.score.readers.rows import Wanted
from tests.fuzz.readers import TASK


def write(path: Path, texts: list[str], rows: list[int | None], **settings: Any) -> Path:
    """Write a file whose row R has the text number rows[R], with each text once."""
    text = pa.DictionaryArray.from_arrays(pa.array(rows, pa.int32()), pa.array(texts))
    table = pa.table({"text": text, "label": ["up"] * len(rows)})
    pq.write_table(table, path, dictionary_pagesize_limit=2**30, store_schema=False, **settings)
    return path


def test_a_text_that_no_line_could_have_is_refused_before_it_is_repeated(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", ["a", "b" * (LONGEST + 1)], [0, 0, *[1] * 4_000])
    assert path.stat().st_size < 2**20
    said = rf"x\.parquet, row 3: more than {LONGEST:,} bytes\. Shorten its text"
    with pytest.raises(DataError, match=said):
        list(ParquetReader(path).read(Wanted(("text",))))
    source = open_source(SimpleNamespace(source={"train": str(path)}), TASK)
    with pytest.raises(DataError, match=said):
        list(source.batches("train"))


def test_long_texts_are_made_a_few_at_a_time(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", ["a" * 2**20], [0] * 1_000)
    sizes = [batch.num_rows for batch in parquet_batches(path, ["text"], 4_096)]
    assert sum(sizes) == 1_000
    assert max(sizes) <= (MOST_TEXT >> 20) + 1


@pytest.mark.parametrize("settings", [{}, {"use_dictionary": False}, {"row_group_size": 3}], ids=str)
def test_every_way_to_write_a_file_gives_the_same_rows(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = write(tmp_path / "x.parquet", ["a", "ä", ""], [2, 0, None, 1, 0, 1, 1], **settings)
    found = [text for batch in parquet_batches(path, None, 2) for text in batch.column("text").to_pylist()]
    assert found == ["", "a", None, "ä", "a", "ä", "ä"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_the_type_of_a_column_of_text_does_not_matter(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"text": pa.array(["a", None, "ä"]).cast(kind), "tags": [["x"], [], None], "number": [1, 2, 3]})
    pq.write_table(table, tmp_path / "x.parquet")
    (batch,) = parquet_batches(tmp_path / "x.parquet", None, 4)
    assert batch.to_pydict() == {"text": ["a", None, "ä"], "tags": [["x"], [], None], "number": [1, 2, 3]}
