"""Tests that commands on a finished run take the data of that run, and no other."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftsys.config import build_run
from ftsys.errors import ConfigError, DataError
from ftsys.export.rows import SplitRows
from ftsys.finished import store
from ftsys.finished.run import FinishedRun
from ftsys.finished.store import open_store
from ftsys.tasks import GLUE

FINGERPRINT = "0123456789abcdef" * 4


def finished(folder: Path, **results: Any) -> FinishedRun:
    run = build_run({"output_dir": "x", "task": {"name": "mrpc"}, "data": {"source": "glue"}})
    return FinishedRun(folder, run, GLUE["mrpc"], {"task": "mrpc", **results})


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the store that the source gives now."""
    made = SimpleNamespace(splits={"validation": object()}, fingerprint=FINGERPRINT)
    monkeypatch.setattr(store, "ensure_store", lambda *_: made)
    return made


@pytest.mark.parametrize("results", [{"store_fingerprint": FINGERPRINT}, {"store": "stores/0123456789abcdef"}])
def test_the_store_of_the_run_is_opened(tmp_path: Path, results: dict[str, str], found: SimpleNamespace) -> None:
    assert open_store(finished(tmp_path, **results), "validation") is found


@pytest.mark.parametrize("results", [{"store_fingerprint": "f" * 64}, {"store": "stores/ffffffffffffffff"}, {}])
def test_other_data_is_refused(tmp_path: Path, results: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"data\.source='glue' is not the data that '.*' was trained on"):
        open_store(finished(tmp_path, **results), "validation")


def test_a_split_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no split 'dev', only \['validation'\]"):
        open_store(finished(tmp_path, store_fingerprint=FINGERPRINT), "dev")


@pytest.mark.parametrize(("count", "expected"), [(1, [[5, 6], [5, 6]]), (2, [[5, 6], [7, 0]])])
def test_a_split_of_one_row_is_converted_with_it_twice(count: int, expected: list[list[int]]) -> None:
    split = [{"input_ids": [5, 6], "attention_mask": [1, 1]}, {"input_ids": [7], "attention_mask": [1]}]
    assert SplitRows(split[:count], count, pad_id=0).two()["input_ids"].tolist() == expected
