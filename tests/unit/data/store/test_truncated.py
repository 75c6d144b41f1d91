"""Nothing that a split has given away is read from its file later: behind the end of a mapped file, a read kills."""

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import ftsys.data.store.split_writer as split_writer
from ftsys.data.store.reader import Store, StoreSplit
from ftsys.errors import DataError
from tests.unit.data.store.test_store import Rows, some_rows, write

Arrays = list[npt.NDArray[Any]]
GIVEN: dict[str, Callable[[StoreSplit], Arrays]] = {
    "labels": lambda split: [split.labels],
    "labels of parts": lambda split: list(split.label_parts()),
    "labels of rows": lambda split: [split.labels_of([2, 0]), split.labels_of(np.arange(len(split)))],
    "lengths": lambda split: [split.lengths],
    "gather": lambda split: list(split.gather([3, 1])),
}


def owners(array: npt.NDArray[Any]) -> Iterator[object]:
    """Yield all that an array is a view of."""
    base = array.base
    while base is not None:
        yield base
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)


@pytest.mark.parametrize("several", [False, True], ids=["numbers", "several labels"])
@pytest.mark.parametrize("rows_per_batch", [8, 64], ids=["many batches", "one batch"])
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_what_a_split_gives_away_is_no_view_of_its_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: Callable[[StoreSplit], Arrays],
    rows_per_batch: int,
    several: bool,
) -> None:
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", rows_per_batch)
    rows: Rows = [(ids, first, [label, 1] if several else label) for ids, first, label in some_rows(20)]
    path = write(tmp_path, {"train": rows}, label_type="(2,)int8" if several else "int64")
    arrays = given(Store.open(path).splits["train"])
    assert arrays
    assert [array.dtype for array in arrays if any(isinstance(base, mmap.mmap) for base in owners(array))] == []


def test_labels_outlive_the_file(tmp_path: Path) -> None:
    """They are read once, so that no later use depends on the file."""
    rows = some_rows(5000)
    path = write(tmp_path, {"train": rows})
    split = Store.open(path).splits["train"]
    taken = split.labels
    assert not any(isinstance(base, mmap.mmap) for base in owners(taken)), "the next read would end this process"
    os.truncate(path / "train.arrow", 4096)
    assert taken.tolist() == split.labels.tolist() == [label for _, _, label in rows]


def test_labels_of_parts_are_checked_before_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", 8)
    path = write(tmp_path, {"train": some_rows(20)})
    parts = Store.open(path).splits["train"].label_parts()
    assert len(next(parts)) == 8
    os.truncate(path / "train.arrow", (path / "train.arrow").stat().st_size - 1)
    with pytest.raises(DataError, match=r"train.arrow: damaged, it became shorter while it was in use"):
        next(parts)
