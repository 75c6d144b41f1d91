"""Tests that rows of every kind of Python collection become the same entries."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ftsys.errors import DataError
from ftsys.score.in_memory import entries_of

PAIRS = [("a", "b"), ("c", "d")]
TABLE = {"text": ["a", "c"], "text_pair": ["b", "d"], "id": [1, 2]}
ROWS = [{"text": "a", "text_pair": "b", "id": 1}, {"id": 2, "text": "c", "text_pair": "d"}]


def texts(data: Any, columns: Sequence[str] | None = None, known: Sequence[str] | None = None) -> list[tuple[str, ...]]:
    return [entry.texts for entry in entries_of(data, columns, known)]


def pandas_table() -> Any:
    import pandas

    return pandas.DataFrame(TABLE)


def datasets_table() -> Any:
    import datasets

    return datasets.Dataset.from_dict(TABLE)


def polars_table() -> Any:
    return pytest.importorskip("polars", reason="polars is not installed").DataFrame(TABLE)


def pyarrow_table() -> Any:
    import pyarrow

    return pyarrow.table(TABLE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PAIRS,
        lambda: iter(PAIRS),
        lambda: [list(pair) for pair in PAIRS],
        lambda: ROWS,
        pandas_table,
        polars_table,
        datasets_table,
        pyarrow_table,
        lambda: np.array(PAIRS),
    ],
)
def test_pairs(make: Any) -> None:
    assert texts(make()) == PAIRS


def test_numpys_own_texts() -> None:
    found = texts(np.array(["a", "b"]))
    assert found == [("a",), ("b",)]
    assert {type(text) for row in found for text in row} == {str}


def test_columns_that_are_named_by_numbers() -> None:
    import pandas

    table = pandas.DataFrame([["a", "b"], ["c", "d"]])
    numbers: Any = [0, 1]
    assert texts(table, numbers) == texts(table, ["0", "1"]) == PAIRS
    twice = pandas.DataFrame([["a", "b"]], columns=[0, "0"])
    with pytest.raises(DataError, match="column '0' is there more than once"):
        texts(twice, ["0"])


def test_texts_and_named_columns() -> None:
    import pandas

    assert texts(["a", "b"]) == texts(pandas.Series(["a", "b"])) == [("a",), ("b",)]
    assert texts(pandas_table(), ["text_pair"]) == [("b",), ("d",)]
    assert texts(pandas_table(), None, ("text",)) == [("a",), ("c",)]
    assert texts([]) == []


@pytest.mark.parametrize(
    ("data", "columns", "said"),
    [
        ("text", None, "even of one text"),
        (7, None, "no collection"),
        (["a", ("b", "c")], None, "row 2: 2 texts, where rows have 1"),
        ([("a", "b", "c")], None, "row 1: 3 texts"),
        ({"text": "a"}, None, r"a dictionary \({'text': 'a'}\) is no collection of rows: give a list of dictionaries"),
        ([None, "a"], None, "row 1: column 'first text' is missing"),
        (iter([None]), None, "row 1: column 'first text' is missing"),
        (["a", None], None, "row 2: column 'first text' is missing"),
        ([("a", 3)], None, "row 1: column 'second text' is 3, not text"),
        ([{"x": "a"}], None, "columns="),
        (ROWS, ["txt"], "no column 'txt'"),
    ],
)
def test_rows_that_are_refused(data: Any, columns: Sequence[str] | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        texts(data, columns)
