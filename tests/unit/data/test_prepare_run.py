"""From a run file to a store: what fits, what is refused, and where stores live."""

from pathlib import Path
from typing import Any

import pytest

from ftsys.cache import cache_folder
from ftsys.config import RunConfig, resolve_task
from ftsys.data.prepare import ensure_store, store_root
from ftsys.errors import ConfigError


@pytest.fixture
def folder(minilm_folder: Path) -> Path:
    return minilm_folder


def run_of(**sections: dict[str, Any]) -> RunConfig:
    base: dict[str, Any] = {"output_dir": "unused", "task": {"name": "paraphrase"}, "data": {"source": "synthetic"}}
    return RunConfig(**{**base, **sections})


def test_ensure_store_goes_from_a_run_file_to_a_store(tmp_path: Path, folder: Path) -> None:
    run, told = run_of(data={"source": "synthetic", "store": str(tmp_path)}), dict[str, int]()
    store = ensure_store(run, resolve_task(run), lambda rows, _, split: told.update({split: rows}))
    assert store.path.parent == tmp_path
    assert {name: split.rows for name, split in store.splits.items()} == told


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"source": "synthetic", "max_length": 513}}, "longer than the model allows, 512"),
        ({"model": {"name": "./nowhere"}}, "no such folder"),
    ],
)
def test_ensure_store_refuses_what_does_not_fit(folder: Path, sections: dict[str, Any], message: str) -> None:
    run = run_of(**sections)
    with pytest.raises(ConfigError, match=message):
        ensure_store(run, resolve_task(run))


def test_where_stores_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTSYS_CACHE", str(tmp_path / "own"))
    assert store_root("auto") == tmp_path / "own" / "stores"
    monkeypatch.delenv("FTSYS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store_root() == tmp_path / "xdg" / "ftsys" / "stores"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ftsys"
    assert store_root("~/stores") == tmp_path / "stores"


def test_a_data_set_in_memory_stands_in_for_the_source(folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = {"sentence1": ["a cat", "a dog"], "sentence2": ["the cat", "the house"], "label": [1, 0]}
    run = run_of(data={"source": {"train": "in memory"}, "store": str(tmp_path)})
    store = ensure_store(run, resolve_task(run), source=DatasetDict(train=Dataset.from_dict(rows)))
    assert store.splits["train"].labels.tolist() == [1, 0]
