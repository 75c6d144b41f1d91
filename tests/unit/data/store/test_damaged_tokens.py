"""Tests that a damaged token of a store that is not hashed at its opening is told."""

from pathlib import Path

import numpy as np
import pytest

from ftsys.data.store import split_writer
from ftsys.data.store.reader import Store
from ftsys.errors import DataError
from tests.unit.data.store.test_store import Rows, changed, some_rows, write


def test_a_damaged_token_of_a_large_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", 8)
    path = write(tmp_path, {"train": some_rows(20)})
    index = Store.open(path).index

    def damage(data: bytearray) -> None:
        at = index.splits["train"].batches.values[1]  # the first token of row 8
        data[at : at + 2] = np.uint16(2**16 - 1).tobytes()

    changed(path / "train.arrow", damage)
    split = Store.open(path, verify=False).splits["train"]
    assert index.tokenizer.vocab_size < 2**16 - 1
    with pytest.raises(DataError, match=r"train.arrow: damaged, it has the token id 65535"):
        split.gather([3, 8])
    assert split.gather([7, 9]).lengths.size == 2


@pytest.mark.parametrize("by", [1, -1])
def test_an_end_of_a_row_that_moved_is_found_by_the_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: int
) -> None:
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", 8)
    rows: Rows = [(list(range(5)), 3, 0) for _ in range(20)]
    path = write(tmp_path, {"train": rows})
    at = Store.open(path).index.splits["train"].batches.list_offsets[1] + 4 * 3

    def damage(data: bytearray) -> None:
        data[at : at + 4] = (np.frombuffer(data, np.int32, 1, at) + by).astype(np.int32).tobytes()

    assert Store.open(path, verify=False).splits["train"].lengths.tolist() == [len(ids) for ids, _, _ in rows]
    changed(path / "train.arrow", damage)
    with pytest.raises(DataError, match=r"train.arrow: damaged, its lengths are not those that index.json counts"):
        _ = Store.open(path, verify=False).splits["train"].lengths


def test_a_first_segment_that_is_longer_than_its_row_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": some_rows(20)})
    at = Store.open(path).index.splits["train"].batches.first_length[0] + 2 * 5

    def damage(data: bytearray) -> None:
        data[at : at + 2] = np.uint16(60_000).tobytes()

    changed(path / "train.arrow", damage)
    split = Store.open(path, verify=False).splits["train"]
    with pytest.raises(DataError, match=r"train.arrow: damaged, the first segment of row 5 .*, 60000 tokens"):
        split.gather([3, 5])
    assert split.gather([3, 6]).lengths.size == 2
