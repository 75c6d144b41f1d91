"""Tests that a damaged token of a store that is not hashed at its opening is told."""

from pathlib import Path

import numpy as np
import pytest

from ftsys.data.store import split_writer
from ftsys.data.store.reader import Store
from ftsys.errors import DataError
from tests.unit.data.store.test_store import changed, some_rows, write


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
