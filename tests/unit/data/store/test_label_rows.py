"""The store gives back labels that are no class ids: numbers, and several labels a row, across record batches."""

import pickle
from pathlib import Path

import numpy as np
import pytest

import ftsys.data.store.split_writer as split_writer
from ftsys.data.store.reader import Store
from tests.unit.data.store.test_store import Rows, check_gather, some_rows, write


def test_labels_of_several_columns_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", 8)
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, (30, 300)).tolist()
    rows: Rows = [(ids, first, labels[row]) for row, (ids, first, _) in enumerate(some_rows(30))]
    unlabelled: Rows = [(ids, first, [-1] * 300) for ids, first, _ in some_rows(9)]
    store = Store.open(write(tmp_path, {"train": rows, "test": unlabelled}, label_type="(300,)int8"))
    check_gather(store, "train", rows, [29, 0, 8, 7, 7, 16])
    assert store.splits["train"].labels.tolist() == labels
    assert (store.splits["train"].labelled, store.splits["test"].labelled) == (True, False)
    assert store.splits["train"][3]["labels"] == labels[3]
    assert store.splits["train"].gather([]).labels.shape == (0, 300)
    assert pickle.loads(pickle.dumps(store.splits["train"])).gather([5]).labels.tolist() == [labels[5]]


def test_regression_labels_keep_nan(tmp_path: Path) -> None:
    labelled, unlabelled = [([1, 2], 1, 2.5), ([3], 1, 0.0)], [([1], 1, float("nan"))]
    path = write(tmp_path, {"train": labelled, "test": unlabelled}, label_type="float64")
    store = Store.open(path)
    assert store.splits["train"].gather([1, 0]).labels.tolist() == [0.0, 2.5]
    assert np.isnan(store.splits["test"].labels).all()
    assert (store.splits["train"].labelled, store.splits["test"].labelled) == (True, False)
    assert "labels" not in store.splits["test"][0]
