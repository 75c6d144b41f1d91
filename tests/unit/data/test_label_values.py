"""Tests that labels which a task cannot have are told: a large store is not hashed when it is opened."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ftsys.data.store.split_writer as split_writer
from ftsys.config import build_run, resolve_task
from ftsys.data.label_values import check_labels
from ftsys.data.store.reader import Store
from ftsys.errors import DataError
from ftsys.tasks import Task
from ftsys.train.preflight import check_before_claim
from tests.unit.data.store.test_store import Rows, changed, some_rows, write

CLASSES = Task(name="mood", columns=("text",), labels=("a", "b", "c"), metrics=("accuracy",), train_split="train")
SCORE = Task(name="score", columns=("text",), labels=(), metrics=("pearson",), regression=True)
SETS = Task(name="moods", columns=("text",), labels=("a", "b", "c"), metrics=("micro_f1",), multi_label=True)


@pytest.fixture(params=[8, 2**16])
def batch_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels in several record batches, and in one."""
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", request.param)


def damaged(path: Path, value: Any) -> Store:
    """Change the label of row 3, and open the store without hashing it, as a large one."""
    table, label = Store.open(path).index.splits["train"].batches, np.asarray(value)

    def change(data: bytearray) -> None:
        at = table.label[0] + 3 * label.nbytes
        data[at : at + label.nbytes] = label.tobytes()

    changed(path / "train.arrow", change)
    return Store.open(path, verify=False)


@pytest.mark.usefixtures("batch_rows")
@pytest.mark.parametrize("value", [3, 999, 10**12, -1, -7])
def test_an_id_that_is_no_class_is_damage(tmp_path: Path, value: int) -> None:
    path = write(tmp_path, {"train": some_rows(20), "test": []})
    for split in Store.open(path).splits.values():
        check_labels(split, CLASSES)
    with pytest.raises(DataError, match=rf"train.arrow: damaged, it has the label .*{value}.* the task has 3 labels"):
        check_labels(damaged(path, np.int64(value)).splits["train"], CLASSES)


@pytest.mark.usefixtures("batch_rows")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_damage(tmp_path: Path, value: float) -> None:
    rows: Rows = [(ids, first, float(label)) for ids, first, label in some_rows(20)]
    path = write(tmp_path, {"train": rows}, label_type="float64")
    check_labels(Store.open(path).splits["train"], SCORE)
    with pytest.raises(DataError, match=r"train.arrow: damaged, it has a label that is not finite"):
        check_labels(damaged(path, np.float64(value)).splits["train"], SCORE)


@pytest.mark.usefixtures("batch_rows")
@pytest.mark.parametrize("value", [2, -1, 127])
def test_a_set_with_another_number_is_damage(tmp_path: Path, value: int) -> None:
    rows: Rows = [(ids, first, [label % 2, 0, 1]) for ids, first, label in some_rows(20)]
    path = write(tmp_path, {"train": rows}, label_type="(3,)int8")
    check_labels(Store.open(path).splits["train"], SETS)
    with pytest.raises(DataError, match=rf"train.arrow: damaged, it has the label .*{value}"):
        check_labels(damaged(path, np.array([0, value, 1], np.int8)).splits["train"], SETS)


def test_a_split_without_labels_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, {"test": [([1, 2], 1, -1), ([3], 1, -1)]})
    check_labels(Store.open(path).splits["test"], CLASSES)


def test_a_run_is_refused_before_its_labels_are_counted(tmp_path: Path) -> None:
    task = {"name": "mood", "columns": ["text"], "labels": ["a", "b", "c"]}
    data, train = {"source": {"train": "train.csv"}}, {"eval_every": "never"}
    run = build_run({"output_dir": str(tmp_path / "out"), "task": task, "data": data, "train": train})
    store = damaged(write(tmp_path / "stores", {"train": some_rows(20)}), np.int64(10**12))
    with pytest.raises(DataError, match=r"train.arrow: damaged, it has the label 0 or 1000000000000"):
        check_before_claim(run, resolve_task(run), store)


@pytest.mark.usefixtures("batch_rows")
@pytest.mark.parametrize("other", [None, [1, 0, 0], [0, 1, 0]])
def test_rows_with_the_same_labels_teach_nothing(tmp_path: Path, other: list[int] | None) -> None:
    rows: Rows = [(ids, first, [1, 1, 0]) for ids, first, _ in some_rows(20)]
    rows += [([5], 1, other)] if other else []
    task = {"name": "moods", "columns": ["text"], "labels": ["a", "b", "c"], "multi_label": True}
    data, train = {"source": {"train": "train.csv"}}, {"eval_every": "never"}
    run = build_run({"output_dir": str(tmp_path / "out"), "task": task, "data": data, "train": train})
    store = Store.open(write(tmp_path / "stores", {"train": rows}, label_type="(3,)int8"))
    if other:
        assert check_before_claim(run, resolve_task(run), store)
    else:
        with pytest.raises(DataError, match="split 'train': its 20 rows all have the same labels"):
            check_before_claim(run, resolve_task(run), store)
