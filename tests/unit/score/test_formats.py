"""Tests that values keep what they are in the output: line breaks in CSV, and Arrow's types in Parquet."""

import csv
import io
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from ftsys.score.columns import Written
from ftsys.score.formats import format_of
from ftsys.score.outcomes import IDENTITY, Head
from ftsys.score.readers.arrow import DatasetReader

MOMENT = datetime(2024, 5, 6, 7, 8, 9)


def test_a_carriage_return_in_a_value_ends_no_row(tmp_path: Path) -> None:
    """Python before 3.11.9 does not quote it by itself."""
    form, path, part = format_of(Path("o.csv"), {}), tmp_path / "o.csv", tmp_path / "part"
    part.write_bytes(form.encode({"a\rb": ["x\ry", "\r\n"], "c": ["", "z"]}))
    with path.open("wb") as stream:
        form.join([part], ["a\rb", "c"], stream)
    assert path.read_bytes() == b'"a\rb",c\n"x\ry",\n"\r\n",z\n'
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert rows == [["a\rb", "c"], ["x\ry", ""], ["\r\n", "z"]]


def test_a_number_that_is_none_is_missing_in_a_column_of_texts(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    form, path, part = format_of(Path("o.parquet"), {"x": pa.string()}), tmp_path / "o.parquet", tmp_path / "part"
    part.write_bytes(form.encode({"x": [float("nan"), None, 1.5, "a"]}))
    with path.open("wb") as stream:
        form.join([part], ["x"], stream)
    assert pyarrow.parquet.read_table(path).to_pydict() == {"x": [None, None, "1.5", "a"]}


@pytest.mark.parametrize(
    ("kind", "value"), [("timestamp[s]", MOMENT), ("time32[s]", time(1, 2, 3)), ("date64", date(2024, 5, 6))]
)
def test_a_carried_column_whose_type_parquet_lacks(kind: str, value: Any, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet
    from datasets import Dataset

    typed = pa.array([value, None], pa.type_for_alias(kind))
    Dataset(pa.table({"text": ["a", "b"], "when": typed})).save_to_disk(tmp_path / "rows")
    types = DatasetReader(tmp_path / "rows", None).types
    written = Written(Head((), IDENTITY), ("when",))
    form, part = format_of(Path("o.parquet"), written.types([types])), tmp_path / "part"
    part.write_bytes(form.encode({"when": [value, None], "score": [0.5, 0.25]}))
    with (tmp_path / "o.parquet").open("wb") as stream:
        form.join([part, part], written.names, stream)
    found = pyarrow.parquet.read_table(tmp_path / "o.parquet").to_pydict()
    assert found == {"when": [value, None] * 2, "score": [0.5, 0.25] * 2}
