"""A sealed index whose fields contradict each other is refused, since anybody can compute its checksum."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftsys.data.store import split_writer
from ftsys.data.store.index import _SEALED, INDEX_NAME, StoreIndex
from ftsys.errors import DataError
from tests.unit.data.store.test_store import some_rows, write

Change = Callable[[dict[str, Any], dict[str, Any]], object]

CONTRADICTIONS: dict[str, tuple[Change, str]] = {
    "a token type": (lambda index, split: index.update(token_type="float64"), "token_type 'float64'"),
    "a label type": (lambda index, split: index.update(label_type="O"), "label_type 'O'"),
    "several labels": (lambda index, split: index.update(label_type="(-3,)int8"), "label_type '(-3,)int8'"),
    "rows of a batch": (lambda index, split: index.update(rows_per_batch=7), "rows_per_batch 7"),
    "no rows in a batch": (lambda index, split: index.update(rows_per_batch=-8), "rows_per_batch -8"),
    "no split": (lambda index, split: index.update(splits=[]), "it has no split"),
    "a split twice": (lambda index, split: index["splits"].append(split), "two of its splits are in 'train.arrow'"),
    "rows": (lambda index, split: split.update(rows=22), "`lengths` does not add up to its rows and tokens"),
    "tokens": (lambda index, split: split.update(tokens=7), "`lengths` does not add up to its rows and tokens"),
    "no lengths": (lambda index, split: split.update(lengths=[]), "`lengths` does not count examples"),
    "a length above the limit": (lambda index, split: split["lengths"].append(0), "`lengths` does not count examples"),
    "a batch too many": (lambda index, split: split["batches"]["rows"].append(0), "its batches do not add up"),
    "no rows at the end": (
        lambda index, split: split["batches"]["rows"].__setitem__(slice(3), [8, 8, 8, -3]),
        "has -3 rows",
    ),
    "a column too short": (lambda index, split: split["batches"]["values"].pop(), "batches.values has 2 entries"),
    "behind the end": (
        lambda index, split: split["batches"]["label"].__setitem__(2, split["size"]),
        "batches.label leads",
    ),
    "before the start": (lambda index, split: split["batches"]["values"].__setitem__(0, -8), "batches.values leads"),
    "between two numbers": (
        lambda index, split: split["batches"]["list_offsets"].__setitem__(0, 9),
        "is not a multiple",
    ),
}


@pytest.mark.parametrize(("change", "said"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, said: str) -> None:
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", 8)
    path = write(tmp_path, {"train": some_rows(21)}) / INDEX_NAME
    fields = json.loads(path.read_text())
    del fields["sha256"]
    path.write_bytes(_SEALED.seal(fields))
    assert StoreIndex.read(path.parent).splits["train"].rows == 21
    change(fields, fields["splits"][0])
    path.write_bytes(_SEALED.seal(fields))
    with pytest.raises(DataError) as refused:
        StoreIndex.read(path.parent)
    assert said in str(refused.value)
