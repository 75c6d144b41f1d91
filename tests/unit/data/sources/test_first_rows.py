"""`data.first_rows`: a split that is cut off, in every kind of source, and another store for it."""

from pathlib import Path
from typing import Any

import pytest

from ftsys.config import build_run, resolve_task, run_identity
from ftsys.data.bundle import Bundle, asked_of
from ftsys.data.sources.source import open_source
from ftsys.errors import ConfigError

ROWS = 7


def tree(folder: Path, first_rows: dict[str, Any], ending: str = "csv") -> dict[str, Any]:
    path = folder / f"train.{ending}"
    if ending == "csv":
        path.write_text("text,label\n" + "".join(f"text {row},{row % 2}\n" for row in range(ROWS)))
    else:
        path.write_text("".join(f'{{"text": "text {row}", "label": {row % 2}}}\n' for row in range(ROWS)))
    task = {"name": "mood", "columns": ["text"], "labels": ["down", "up"]}
    return {"output_dir": "out", "task": task, "data": {"source": {"train": str(path)}, "first_rows": first_rows}}


def opened(folder: Path, first_rows: dict[str, Any], ending: str = "csv") -> Any:
    run = build_run(tree(folder, first_rows, ending))
    return open_source(run.data, resolve_task(run))


def texts(source: Any, rows_per_batch: int) -> list[str]:
    return [text for batch in source.batches("train", rows_per_batch) for text in batch.first]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("count", [1, 3, 4, 6, ROWS, ROWS + 5])
@pytest.mark.parametrize("rows_per_batch", [2, 3, 100])
def test_the_first_ones_come_in_order(tmp_path: Path, ending: str, count: int, rows_per_batch: int) -> None:
    source = opened(tmp_path, {"train": count}, ending)
    kept = min(count, ROWS)
    assert texts(source, rows_per_batch) == [f"text {row}" for row in range(kept)]
    assert source.rows("train") in (None, kept)
    labels = [label for batch in source.batches("train", rows_per_batch) for label in batch.labels.tolist()]
    assert labels == [row % 2 for row in range(kept)]


def test_the_fingerprint_tells_them_apart(tmp_path: Path) -> None:
    prints = {opened(tmp_path, first).fingerprint for first in ({}, {"train": 3}, {"train": 4})}
    assert len(prints) == 3


def test_a_run_of_all_rows_is_the_run_it_was_before(tmp_path: Path) -> None:
    whole, cut = (build_run(tree(tmp_path, first)) for first in ({}, {"train": 3}))
    assert run_identity(whole) != run_identity(cut)
    assert "first_rows" not in str(asked_of(whole, resolve_task(whole)))


def test_a_bundle_of_a_part_is_not_one_of_the_whole(tmp_path: Path) -> None:
    whole, cut = (build_run(tree(tmp_path, first)) for first in ({}, {"train": 3}))
    for mine, other in ((whole, cut), (cut, whole)):
        bundle = Bundle(tmp_path, asked_of(mine, resolve_task(mine)), "store", {}, "0")
        bundle.check(mine, resolve_task(mine))
        with pytest.raises(ConfigError, match=r"data\.first_rows=.* is not what the bundle"):
            bundle.check(other, resolve_task(other))


@pytest.mark.parametrize(
    ("first_rows", "said"),
    [
        ({"trian": 3}, r"data\.first_rows names the split 'trian': did you mean 'train'"),
        ({"train": 0}, r"data\.first_rows=.* cannot be used: write a table of splits"),
        ({"train": "3"}, r"data\.first_rows=.* cannot be used"),
        (3, r"data\.first_rows=3 cannot be used"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, first_rows: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_run(tree(tmp_path, first_rows))
