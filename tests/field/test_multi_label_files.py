"""Files whose rows have several labels, in the shapes of public releases and of the programs that write them.

To add a row: the file's name, how to write it, the keys of [task] besides name and multi_label, and the right bits of
its rows, or a part of the message that refuses it.
"""

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value

from ftsys.config import build_run, resolve_task
from ftsys.data.sources.source import open_source
from ftsys.errors import ConfigError, DataError
from ftsys.tasks import Task

NAMES = ["joy", "anger", "fear"]
COLUMN = {"columns": ["text"], "labels": NAMES, "label_column": "labels"}
COLUMNS = {"columns": ["text"], "label_columns": NAMES}
TEXTS = ["a good day", "a bad day", "nothing"]
BITS = [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
IDS, WORDS = [[0], [1, 2], []], [["joy"], ["anger", "fear"], []]
Write = Callable[[Path], object]


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": TEXTS, **columns})


def lines(rows: list[dict[str, Any]]) -> Write:
    return lambda path: path.write_text("\n".join(map(json.dumps, rows)))


def of_datasets(labels: Any, kind: Any) -> Write:
    features = Features({"text": Value("string"), "labels": kind})
    return lambda path: Dataset.from_dict({"text": TEXTS, "labels": labels}, features).to_parquet(path)


BY_COLUMN = {name: [row[at] for row in BITS] for at, name in enumerate(NAMES)}
SHAPES: list[tuple[str, Write, dict[str, Any], list[list[int]] | str]] = [
    ("t.csv", lambda path: frame(id=["a", "b", "c"], **BY_COLUMN).to_csv(path, index=False), COLUMNS, BITS),
    ("t.tsv", lambda path: frame(**BY_COLUMN).to_csv(path, index=False, sep="\t"), COLUMNS, BITS),
    ("t.csv", lambda path: frame(labels=["joy", "anger;fear", ""]).to_csv(path, index=False), COLUMN, BITS),
    ("t.csv", lambda path: frame(labels=WORDS).to_csv(path, index=False), COLUMN, BITS),
    ("t.csv", lambda path: frame(labels=BITS).to_csv(path, index=False), COLUMN, BITS),
    ("t.csv", lambda path: frame(labels=["100", "011", "000"]).to_csv(path, index=False), COLUMN, BITS),
    (
        "t.csv",
        lambda path: pd.read_csv(StringIO("text,labels\na,10\nb,01\nc,11\n")).to_csv(path, index=False),
        {**COLUMN, "labels": NAMES[:2]},
        "line 3: labels '1': '10' is a bit string, and '1' is read as one label. As a bit string it has 1 digit, not "
        "2: leading zeros may have been lost. Save the column as text, or write names.",
    ),
    ("t.tsv", lambda path: path.write_text("text\tlabels\tid\na\t0\tx\nb\t1,2\ty\nc\t\tz\n"), COLUMN, BITS),
    ("t.json", lambda path: frame(labels=WORDS).to_json(path, orient="records"), COLUMN, BITS),
    ("t.jsonl", lines([{"text": "a", "labels": row} for row in IDS]), COLUMN, BITS),
    ("t.jsonl", lines([{"text": "a"} | dict(zip(NAMES, row, strict=True)) for row in BITS]), COLUMNS, BITS),
    ("t.parquet", lambda path: frame(labels=WORDS).to_parquet(path), COLUMN, BITS),
    (
        "t.parquet",
        lambda path: frame(labels=[[float(bit) for bit in row] for row in BITS]).to_parquet(path),
        COLUMN,
        BITS,
    ),
    ("t.parquet", lambda path: frame(**BY_COLUMN).to_parquet(path), COLUMNS, BITS),
    ("t.parquet", of_datasets(IDS, Sequence(ClassLabel(names=NAMES))), COLUMN, BITS),
    ("t.parquet", of_datasets([[2], [1, 0], []], Sequence(ClassLabel(names=NAMES[::-1]))), COLUMN, BITS),
    (
        "t.csv",
        lambda path: frame(joy=[1, 0, 0], anger=[0, 1, 0]).to_csv(path, index=False),
        COLUMNS,
        "no column 'fear'; the columns there are 'text', 'joy', 'anger'. Set task.label_columns to what is there",
    ),
    (
        "t.jsonl",
        lines([{"text": "a", "joy": 1, "anger": 0, "fear": 0}, {"text": "a", "joy": 1, "anger": None, "fear": 1}]),
        COLUMNS,
        "line 2: column 'anger' has None, and a label is 0 or 1",
    ),
    (
        "t.csv",
        lambda path: frame(joy=[0.1, 0.9, 0], anger=[0, 1, 0], fear=[0, 0, 1]).to_csv(path, index=False),
        COLUMNS,
        "line 2: column 'joy' has '0.1', and a label is 0 or 1",
    ),
    (
        "t.csv",
        lambda path: path.write_text("text,labels\na,joy\nb,angre;fear\n"),
        COLUMN,
        "line 3: label 'angre' is not a label of task 'moods': write a name",
    ),
]


def task_of(keys: dict[str, Any], splits: tuple[str, ...] = ("train",)) -> Task:
    files = dict.fromkeys(splits, "x.csv")
    tree = {"output_dir": "x", "task": {"name": "moods", "multi_label": True, **keys}, "data": {"source": files}}
    return resolve_task(build_run(tree))


class Data:
    """The part of [data] that sources read."""

    def __init__(self, source: Any) -> None:
        self.source = source


def read(path: Path, keys: dict[str, Any]) -> list[list[int]]:
    source = open_source(Data({"train": str(path)}), task_of(keys))
    return [row for batch in source.batches("train", 2) for row in batch.labels.tolist()]


@pytest.mark.parametrize(("name", "write", "keys", "right"), SHAPES, ids=[f"{i}-{s[0]}" for i, s in enumerate(SHAPES)])
def test_a_shape_is_read_or_refused(
    tmp_path: Path, name: str, write: Write, keys: dict[str, Any], right: list[list[int]] | str
) -> None:
    write(tmp_path / name)
    if isinstance(right, str):
        with pytest.raises(DataError, match=re.escape(right)):
            read(tmp_path / name, keys)
    else:
        assert read(tmp_path / name, keys) == right


def test_a_test_split_may_lack_all_columns_of_labels_but_not_some(tmp_path: Path) -> None:
    frame(**BY_COLUMN).to_csv(tmp_path / "train.csv", index=False)
    frame().to_csv(tmp_path / "test.csv", index=False)
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "test")}
    task = task_of(COLUMNS, ("train", "test"))
    (batch,) = open_source(Data(files), task).batches("test")
    assert batch.labels.tolist() == [[-1, -1, -1]] * 3
    frame(joy=[1, 0, 0]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match="no column 'anger', 'fear'"):
        open_source(Data(files), task)


def test_a_dataset_in_memory_is_read_by_the_names_of_its_classes() -> None:
    features = Features({"text": Value("string"), "labels": Sequence(ClassLabel(names=NAMES[::-1]))})
    data = DatasetDict(train=Dataset.from_dict({"text": TEXTS, "labels": [[2], [1, 0], []]}, features))
    source = open_source(Data(data), task_of(COLUMN))
    assert [row for batch in source.batches("train") for row in batch.labels.tolist()] == BITS
    assert source.fingerprint != open_source(Data(data), task_of({**COLUMN, "labels": NAMES[::-1]})).fingerprint


def test_a_nested_list_column_of_another_kind_is_refused(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"], "labels": pa.array([[["joy"]]])})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"row 1: labels .*write one 0 or 1 for each label, or the names"):
        open_source(Data({"train": str(tmp_path / "t.parquet")}), task_of(COLUMN))


MISTAKES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({**COLUMN, "regression": True, "labels": []}, {}, "task.multi_label=True and task.regression=True exclude each"),
    (
        {**COLUMNS, "label_column": "x"},
        {},
        "task.label_columns=['joy', 'anger', 'fear'] and task.label_column='x' excl",
    ),
    ({**COLUMNS, "labels": ["a", "b"]}, {}, "task.label_columns names 3 columns and task.labels 2 labels: write one"),
    ({**COLUMNS, "multi_label": False}, {}, "task.label_columns=['joy', 'anger', 'fear'] names a column of 0 and 1"),
    ({**COLUMNS, "label_columns": ["joy"]}, {}, "task.label_columns=['joy'] names one class: write two or more"),
    ({**COLUMNS, "label_columns": ["a", "a"]}, {}, "task.label_columns=['a', 'a'] repeats a name"),
    ({"columns": ["text"]}, {}, "task.labels=[] names no class for task 'moods'"),
    ({"name": "mrpc"}, {}, "task.multi_label=True does not fit task.name='mrpc', whose examples have one label each"),
    (
        {**COLUMN, "metrics": ["accuracy"]},
        {},
        "task.metrics names 'accuracy', which is not a metric for several labels",
    ),
    (
        COLUMN,
        {"trainer": {"label_smoothing_factor": 0.1}},
        "trainer.label_smoothing_factor=0.1 shares a label's weight among classes, and the labels of this task are no",
    ),
    (
        COLUMN,
        {"trainer": {"metric_for_best_model": "f1"}},
        "trainer.metric_for_best_model='f1' is not computed in evaluations: write one of micro_f1, macro_f1, subset_",
    ),
]


@pytest.mark.parametrize(("keys", "sections", "said"), MISTAKES, ids=[said[:50] for _, _, said in MISTAKES])
def test_each_mistake_in_a_run_file_is_one_clear_message(
    keys: dict[str, Any], sections: dict[str, Any], said: str
) -> None:
    task = {"name": "moods", "multi_label": True, **keys}
    files = {"train": "a.csv", "validation": "b.csv"}
    with pytest.raises(ConfigError) as caught:
        build_run({"output_dir": "x", "task": task, "data": {"source": files}, **sections})
    (message,) = caught.value.messages
    assert message.startswith(said)
