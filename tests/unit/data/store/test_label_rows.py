"""The store gives back labels that are no class ids: numbers, and several labels a row, across record batches."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ftsys.data.store.split_writer as split_writer
from ftsys.config import build_run, resolve_task
from ftsys.data.batching.loader import LOCAL_BATCH, BatchSettings, StepLoader
from ftsys.data.store.reader import Store
from ftsys.train.preflight import check_before_claim
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
    assert [len(part) for part in store.splits["train"].label_parts()] == [8, 8, 8, 6]
    assert np.concatenate(list(store.splits["train"].label_parts())).tolist() == labels
    assert store.splits["train"].labels_of([29, 0, 8]).tolist() == [labels[row] for row in (29, 0, 8)]
    assert store.splits["train"].labels_of([]).shape == (0, 300)
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


@pytest.mark.parametrize(
    ("task", "label_type", "weights"),
    [
        ({"labels": ["a", "b", "c"]}, "int64", (1.0, 2.0, 3.0)),
        ({"regression": True, "metrics": ["pearson"]}, "float64", None),
        ({"labels": ["a", "b", "c"], "multi_label": True}, "(3,)int8", (1.0, 2.0, 3.0)),
    ],
)
def test_no_rank_copies_the_labels_of_the_training_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: dict[str, Any], label_type: str, weights: Any
) -> None:
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", 8)
    of_row: dict[str, Any] = {
        "int64": int,
        "float64": float,
        "(3,)int8": lambda label: [int(label == each) for each in range(3)],
    }
    rows: Rows = [(ids, first, of_row[label_type](label)) for ids, first, label in some_rows(30)]
    split = (store := Store.open(write(tmp_path / "stores", {"train": rows}, label_type=label_type))).splits["train"]
    tree = {"task": {"name": "own", "columns": ["text"], **task}, "data": {"source": {"train": "a.csv"}}}
    train = {"eval_every": "never", "class_weights": "balanced" if weights else "none"}
    run = build_run({"output_dir": str(tmp_path / "out"), "train": train, **tree})
    assert check_before_claim(run, resolve_task(run), store) is not None
    loader = StepLoader(split, BatchSettings(8, None, "random", 64, 3, 0, 1, True, class_weights=weights))
    assert all(item[LOCAL_BATCH].step_weight > 0 for item in loader)
    assert "labels" not in vars(split)
