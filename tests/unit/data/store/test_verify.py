"""Tests that `ftsys verify` reports what lies in a store's folder and is not in its index."""

from pathlib import Path

import pytest

from ftsys.data.store.verify import verify_store
from ftsys.train.verify import verify
from tests.unit.data.store.test_store import some_rows, write


@pytest.mark.parametrize("name", ["train.arrow.old", "cache-1.arrow", "sub/notes.txt", "train.arrow.part.json"])
def test_a_file_that_the_index_does_not_list_is_reported(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, {"train": some_rows(6)})
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).touch()
    assert verify_store(path) == [f"{path / name} is not in index.json: remove it, or keep it elsewhere"]
    assert verify(str(path)) == 2


def test_a_link_is_reported_beside_a_damaged_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": some_rows(6)})
    (path / "other").symlink_to(tmp_path)
    (path / "train.arrow").write_bytes(b"")
    assert [line.split()[0] for line in verify_store(path)] == [f"{path}/train.arrow:", f"{path}/other"]


def test_what_lies_beside_a_store_is_not_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": some_rows(6)})
    (tmp_path / f"{path.name}.lease-1").touch()
    (tmp_path / f"{path.name}.tmp-ab").mkdir()
    assert verify_store(path) == []
    assert verify(str(path)) == 0
