"""Labels as people, pandas, Excel and JSON spell them: each is stored as the class that it means, or refused.

To add a row: the classes of the task, the label as the file's reader gives it (text from CSV and TSV; JSON and Parquet
also have numbers and truth values), and its right id, or a part of the message that refuses it. A row of `WRITTEN` has
a column of pandas, and is written and read in every format.
"""

import datetime
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ftsys.config import DataSection, build_run
from ftsys.data.sources.labels import LabelReader
from ftsys.data.sources.source import open_source
from ftsys.errors import ConfigError, DataError
from ftsys.tasks import Task

NFC, NFD = "caf\u00e9", "cafe\u0301"
POLAR, TRUTH, TURNED = ("neg", "pos"), ("false", "true"), ("true", "false")
SIGNS, STARS, CODES = ("-1", "0", "1"), ("1", "2", "3"), ("01", "02", "10")
MISSING = "the label is missing"

SPELLINGS: list[tuple[tuple[str, ...], object, int | str]] = [
    # as text
    (POLAR, "pos", 1),
    (POLAR, " pos ", 1),
    (POLAR, "pos\u00a0", 1),
    (POLAR, "\ufeffpos", 1),
    (POLAR, "po\u200bs", 1),
    ((NFC, "th\u00e9"), NFD, 0),
    ((NFD, "th\u00e9"), NFC, 0),
    (("New York", "Rome"), "New\u00a0 York", 0),
    (POLAR, "Pos", "It differs from 'pos' only in upper and lower case"),
    (POLAR, "p\u043es", "('p\\u043es') is not a label of task 'mine': write"),
    (POLAR, "posi", "Did you mean 'pos'?"),
    (("None", "some"), "None", 0),
    (("nan", "NA", "null"), "NA", 1),
    (("True", "False"), "True", 0),
    (("0,5", "1,5"), "1,5", 1),
    (("3/4", "1/2"), "04-Mar", "is not a label of task 'mine'"),
    # as a number
    (SIGNS, -1, 0),
    (SIGNS, "-1.0", 0),
    (SIGNS, 1.0, 2),
    (SIGNS, "+1", 2),
    (SIGNS, 2, "is not a label"),
    (STARS, 1, 0),
    (STARS, "3.0", 2),
    (STARS, 0, "label 0 is not a label of task 'mine': write a name ('1', '2', '3'), or correct task.labels"),
    (STARS, "01", 0),
    (CODES, 1, 0),
    (CODES, "1", 0),
    (CODES, 10.0, 2),
    (("0.5", "1.0"), Decimal("1"), 1),
    (("0.5", "1.0"), 0.5, 0),
    (("1", "01"), "01", 1),
    (("1", "01"), 1, "is ambiguous: as a number it is the class '1', as a number it is the class '01'"),
    (("1", "2"), "1,0", "It has a decimal comma; the number is 1.0."),
    (("1", "2"), "1_0", "is not a label"),
    # as a truth value
    (TURNED, True, 0),
    (TURNED, False, 1),
    (TURNED, "TRUE", 0),
    (TRUTH, "True", 1),
    (("False", "True"), True, 1),
    (("0", "1"), True, "label True is a truth value, and no class of task 'mine' is named 'true'"),
    (POLAR, True, "label True is a truth value"),
    (("true", "True"), True, "label True is ambiguous: as a truth value it is the class 'true'"),
    (("true", "True"), "True", 1),
    # as an id
    (POLAR, 1, 1),
    (POLAR, "1.0", 1),
    (POLAR, 1.5, "label 1.5 is not a label"),
    (POLAR, 2, "or an id from 0 to 1"),
    (TRUTH, 1, 1),
    (
        TURNED,
        1,
        "label 1 is ambiguous: as an id it is the class 'false', as a truth value it is the class 'true'. Write",
    ),
    (TURNED, "0", "label '0' is ambiguous"),
    # missing
    (POLAR, None, MISSING),
    (POLAR, math.nan, MISSING),
    (POLAR, " ", MISSING),
    (POLAR, -1, MISSING),
    (POLAR, "-1.0", MISSING),
    (POLAR, "nan", "Other programs write a missing value like this."),
    (("None", "some"), None, "pandas reads the class 'None' as a missing value, unless keep_default_na is False"),
    # neither text nor a number
    (POLAR, datetime.date(2026, 1, 2), "it is of type date, neither text nor a number"),
    (POLAR, b"pos", "it is of type bytes"),
    (POLAR, ["pos"], "it is of type list"),
]


def read(classes: tuple[str, ...], labels: list[object], required: bool = True) -> list[int]:
    task = Task("mine", ("text",), classes, ("accuracy",))
    found = LabelReader(task, required).read(labels, len(labels), lambda index: f"row {index + 1}")
    assert found.dtype == np.int64
    return list(found.tolist())


@pytest.mark.parametrize(("classes", "label", "right"), SPELLINGS)
def test_a_label_is_the_class_that_it_means_or_is_refused(
    classes: tuple[str, ...], label: object, right: int | str
) -> None:
    if isinstance(right, int):
        assert read(classes, [label, label]) == [right, right]
        return
    with pytest.raises(DataError) as refused:
        read(classes, [classes[0], label])
    assert str(refused.value).startswith("row 2: ")
    assert right in str(refused.value)


@pytest.mark.parametrize("order", [[True, 1, 1.0, "1"], ["1", 1.0, 1, True], [1, True, 1.0, "1"]])
def test_equal_keys_of_python_are_told_apart(order: list[object]) -> None:
    """1, 1.0 and True are one key of a dictionary; what was read before must not decide what is read next."""
    assert read(("true", "false", "x"), [label for label in order if label is True]) == [0]
    reader = LabelReader(Task("mine", ("text",), ("b", "a", "1"), ("accuracy",)), True)
    for label in order:
        if label is True:
            with pytest.raises(DataError, match="is a truth value"):
                reader.read([label], 1, str)
        else:
            assert reader.read([label], 1, str).tolist() == [2]


@pytest.mark.parametrize("label", [None, math.nan, "", "\u00a0", -1, "-1", "-1.0", -1.0])
def test_all_forms_of_unlabelled_in_a_test_split(label: object) -> None:
    assert read(POLAR, [label, None], required=False) == [-1, -1]


def test_minus_one_is_a_class_of_a_test_split_too() -> None:
    assert read(SIGNS, [-1, "0", 1.0], required=False) == [0, 1, 2]


WRITTEN: list[tuple[tuple[str, ...], Any, list[int] | str]] = [
    (SIGNS, pd.Series([-1, 0, 1]), [0, 1, 2]),
    (SIGNS, pd.Series([-1.0, 0.0, 1.0]), [0, 1, 2]),
    (TURNED, pd.Series([True, False, True]), [0, 1, 0]),
    (("True", "False"), pd.Series([True, False, True]), [0, 1, 0]),
    (("no", "yes"), pd.Series([0, 1, 1]), [0, 1, 1]),
    (STARS, pd.Series(["3", "1", "2"], dtype="category"), [2, 0, 1]),
    (CODES, pd.Series([1, 2, 10]), [0, 1, 2]),
    ((NFC, "th\u00e9"), pd.Series([NFD, NFC, "th\u00e9"]), [0, 0, 1]),
    (("None", "some"), pd.Series(["None", "some", "None"]), [0, 1, 0]),
    (("no", "yes"), pd.Series([0, None, 1]), MISSING),
    (TURNED, pd.Series([1, 0, 1]), "label .?1.? is ambiguous"),
]
WRITERS = {
    "csv": lambda table, path: table.to_csv(path, index=False),
    "tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "json": lambda table, path: table.to_json(path, orient="records"),
    "jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    "parquet": lambda table, path: table.to_parquet(path),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(("classes", "column", "right"), WRITTEN, ids=lambda value: str(list(value)))
def test_what_pandas_writes_is_read(
    tmp_path: Path, kind: str, classes: tuple[str, ...], column: Any, right: list[int] | str
) -> None:
    path = tmp_path / f"train.{kind}"
    WRITERS[kind](pd.DataFrame({"text": ["a", "b", "c"], "label": column}), path)
    data = DataSection(source={"train": str(path)})
    task = Task("mine", ("text",), classes, ("accuracy",))
    if isinstance(right, str):
        with pytest.raises(DataError, match=right):
            list(open_source(data, task).batches("train"))
    else:
        (batch,) = open_source(data, task).batches("train")
        assert batch.labels.tolist() == right


@pytest.mark.parametrize("pair", [(NFC, NFD), ("a b", "a\u00a0b"), ("a", "a "), ("a", "\ufeffa")])
def test_names_that_look_the_same_are_refused_with_their_difference(pair: tuple[str, str]) -> None:
    task = {"name": "mine", "columns": ["text"], "labels": list(pair)}
    with pytest.raises(ConfigError, match="which look the same") as refused:
        build_run({"output_dir": "x", "task": task, "data": {"source": {"train": "t.csv"}}})
    assert all(
        repr(name) in str(refused.value) if name.isascii() else ascii(name) in str(refused.value) for name in pair
    )


SCORES: list[tuple[object, float | str]] = [
    (2, 2.0),
    ("2.5", 2.5),
    (" -1e-3 ", -0.001),
    (Decimal("0.1"), 0.1),
    ("1,5", "it has a decimal comma, write a point"),
    ("1_000", "is not a finite number"),
    ("1e999", "is not a finite number"),
    (True, "score True is not a finite number"),
    ("n/a", "is not a finite number"),
    (math.nan, "the score is missing"),
]


@pytest.mark.parametrize(("score", "right"), SCORES)
def test_a_score_is_the_number_that_it_spells(score: object, right: float | str) -> None:
    reader = LabelReader(Task("mine", ("text",), (), ("pearson",), regression=True), True)
    if isinstance(right, float):
        assert reader.read([score], 1, str).tolist() == [right]
    else:
        with pytest.raises(DataError, match=right):
            reader.read([score], 1, str)
