"""Every way to write the labels of a multi-label row has one reading, or is refused with the row's place."""

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

from ftsys.data.sources.label_sets import reader_of
from ftsys.errors import DataError
from ftsys.tasks import Task

NAMES = ("joy", "anger", "love, lost", "fear")
TASK = Task("moods", ("text",), NAMES, ("micro_f1",), multi_label=True)
TWO = Task("moods", ("text",), ("joy", "anger"), ("micro_f1",), multi_label=True)
PARTS = Task("moods", ("text",), NAMES, ("micro_f1",), multi_label=True, label_columns=("a", "b", "c", "d"))
NUMBERED = Task("moods", ("text",), ("10", "20", "30"), ("micro_f1",), multi_label=True)


def read(task: Task, values: list[Any], required: bool = True) -> list[list[int]]:
    found = reader_of(task, required).read(values, len(values), lambda index: f"line {index + 1}")
    assert found.dtype == np.int8
    assert found.shape == (len(values), len(task.labels))
    return found.tolist()


READINGS: list[tuple[Task, Any, str]] = [
    (TASK, "joy", "1000"),
    (TASK, "joy;anger", "1100"),
    (TASK, " anger | fear ", "0101"),
    (TASK, "joy,fear", "1001"),
    (TASK, "love, lost", "0010"),
    (TASK, "joy;love, lost", "1010"),
    (TASK, "0110", "0110"),
    (TASK, "0000", "0000"),
    (TASK, "", "0000"),
    (TASK, "[]", "0000"),
    (TASK, "[1, 0, 0, 1]", "1001"),
    (TASK, "[0.0, 1.0, 0.0, 0.0]", "0100"),
    (TASK, "[True, False, False, False]", "1000"),
    (TASK, "['joy', 'love, lost']", "1010"),
    (TASK, '["joy"]', "1000"),
    (TASK, "0,1,0,0", "0100"),
    (TASK, "0,3", "1001"),
    (TASK, "2", "0010"),
    (TASK, 3, "0001"),
    (TASK, 3.0, "0001"),
    (TASK, [], "0000"),
    (TASK, ["joy", "fear"], "1001"),
    (TASK, [0, 3], "1001"),
    (TASK, [0, 1, 0, 1], "0101"),
    (TASK, [0.0, 1.0, 0.0, 1.0], "0101"),
    (TASK, [True, False, False, True], "1001"),
    (TASK, [3, 2, 1, 0], "1111"),
    (PARTS, ("0", "1", "0", "1"), "0101"),
    (PARTS, (0, 1.0, True, "false"), "0110"),
    (TWO, "01", "01"),
    (TWO, [1.0, 0.0], "10"),
    (TWO, [1, 1], "11"),
    (TWO, [1], "01"),
    (NUMBERED, "10;30", "101"),
    (NUMBERED, [20], "010"),
    (NUMBERED, "010", "010"),
]


@pytest.mark.parametrize(("task", "value", "bits"), READINGS, ids=[repr(value) for _, value, _ in READINGS])
def test_a_value_has_one_reading(task: Task, value: Any, bits: str) -> None:
    assert read(task, [value]) == [[int(bit) for bit in bits]]


REFUSED: list[tuple[Task, Any, str]] = [
    (TASK, "joj;anger", "label 'joj' is not a label of task 'moods'.*Did you mean 'joy'"),
    (TASK, "joy;", "label '' is not a label"),
    (TASK, "joy;joy", "name 'joy' twice"),
    (TASK, "110", "As a bit string it has 3 digits, not 4: leading zeros may have been lost"),
    (TASK, 110, "As a bit string it has 3 digits, not 4"),
    (TASK, [0.0, 1.0], "have 2 values and task 'moods' has 4 labels"),
    (TASK, [0, 1, 0], "name 'joy' twice"),
    (TASK, [0.2, 0.9, 0.0, 0.0], "write one 0 or 1 for each label"),
    (TASK, ["joy", None], "write one 0 or 1 for each label, or the names"),
    (TASK, [["joy"]], "write one 0 or 1 for each label, or the names"),
    (TASK, True, "write one 0 or 1 for each label, or the names"),
    (TASK, {"joy": 1}, "write one 0 or 1 for each label, or the names"),
    (TASK, None, "the labels are missing .None."),
    (TASK, math.nan, "the labels are missing"),
    (TASK, -1, "the labels are missing"),
    (TASK, [7], "label 7 is not a label"),
    (PARTS, ("0", "2", "0", "1"), "column 'b' has '2', and a label is 0 or 1"),
    (PARTS, ("0", "1", "", "1"), "column 'c' has '', and a label is 0 or 1"),
    (PARTS, ("", "", "", ""), "the labels are missing"),
    (TWO, [0, 1], "may be two ids, or 0 and 1 for each of the two labels"),
    (
        Task("t", ("x",), ("a,b", "a", "b"), ("micro_f1",), multi_label=True),
        "a,b",
        "are the name of one label, and also a list of others",
    ),
    (
        Task("t", ("x",), ("011", "a", "b"), ("micro_f1",), multi_label=True),
        "011",
        "are the name of one label, and also a list of others",
    ),
]


@pytest.mark.parametrize(("task", "value", "message"), REFUSED, ids=[repr(value) for _, value, _ in REFUSED])
def test_a_value_without_one_reading_is_refused(task: Task, value: Any, message: str) -> None:
    good: Any = ("1", "0", "0", "0") if task.label_columns else [task.labels[0]]
    with pytest.raises(DataError, match=f"^line 2: .*{message}"):
        read(task, [good, value])


@pytest.mark.parametrize("task", [TWO, Task("t", ("x",), ("0", "1"), ("micro_f1",), multi_label=True)])
@pytest.mark.parametrize("values", [["0", "1", "10"], ["10", "11", " 1"], ["10", 1], [1.0, "01"], ["0", "joy", "11"]])
def test_bit_strings_beside_shorter_ones_are_refused(task: Task, values: list[Any]) -> None:
    """A spreadsheet makes "0" and "1" of "00" and "01"."""
    named = [task.labels[0] if value == "joy" else value for value in values]
    with pytest.raises(
        DataError, match=rf"^line {len(values)}: .*As a bit string it has 1 digit, not 2: leading zeros"
    ):
        read(task, named)


def test_bit_strings_and_shorter_ones_are_found_in_different_batches() -> None:
    reader = reader_of(TWO, True)
    assert reader.read(["0", "anger"], 2, str).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(DataError, match="'10' is a bit string, and '0' is read as one label"):
        reader.read(["joy", "10"], 2, str)


def test_what_is_kept_of_the_texts_is_bounded() -> None:
    names = tuple(f"label {number}" for number in range(256))
    reader = reader_of(Task("t", ("x",), names, ("micro_f1",), multi_label=True), True)
    tracemalloc.start()
    for batch in range(5):
        texts = [f"{row:0256b}" for row in range(2000 * batch, 2000 * (batch + 1))]
        assert reader.read(texts, 2000, str)[7].tolist() == list(map(int, texts[7]))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 5 * 2**20, "10,000 rows of int8 with their texts, or 4,096 of tuples, are above 8 MB"


@pytest.mark.parametrize("nothing", [None, "", -1, [-1, -1, -1, -1], math.nan, "-1"])
def test_a_test_split_may_have_no_labels(nothing: Any) -> None:
    assert read(TASK, [nothing] * 2, required=False) == [[-1] * 4] * 2


def test_a_test_split_without_columns_of_labels_has_none() -> None:
    found = reader_of(PARTS, False).read(None, 2, str)
    assert found.tolist() == [[-1] * 4] * 2
    assert read(PARTS, [("-1",) * 4], required=False) == [[-1] * 4]


def test_a_test_split_says_which_rows_have_no_label_of_the_task() -> None:
    assert read(TASK, ["joy", "[]"], required=False) == [[1, 0, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(DataError, match=r'^line 2: the row has no label, but .* write "\[\]" for a row without any'):
        read(TASK, ["joy", ""], required=False)
