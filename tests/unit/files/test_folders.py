"""Folders that another process changes at the same time can be listed, measured and removed."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ftsys.files.folders import bytes_below, files_below, remove_tree


def make_tree(root: Path, folders: int = 40) -> Path:
    for number in range(folders):
        (root / f"{number}").mkdir(parents=True)
        for name in ("a", "b", "c"):
            (root / f"{number}" / name).write_bytes(bytes(10))
    return root


def test_all_that_is_no_folder_is_below(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", folders=1)
    (tree / "link").symlink_to(tmp_path)
    (tree / "nowhere").symlink_to(tmp_path / "missing")
    assert sorted(path.relative_to(tree).as_posix() for path in files_below(tree)) == [
        "0/a",
        "0/b",
        "0/c",
        "link",
        "nowhere",
    ]
    assert list(files_below(tmp_path / "missing")) == list(files_below(tree / "0/a")) == []
    assert bytes_below(tree / "0") == 30


def test_a_folder_that_is_removed_while_it_is_listed_is_left_out(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", folders=2)
    listing = files_below(tree)
    first = next(listing)
    other = tree / ("1" if first.parent.name == "0" else "0")
    shutil.rmtree(other)
    assert {first.parent, *(path.parent for path in listing)} == {first.parent}


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refused)
    with pytest.raises(PermissionError):
        bytes_below(tmp_path)


def test_several_processes_may_remove_the_same_folder(tmp_path: Path) -> None:
    for number in range(5):
        tree = make_tree(tmp_path / f"tree-{number}")
        with ThreadPoolExecutor(4) as pool:
            for removal in [pool.submit(remove_tree, tree) for _ in range(4)]:
                removal.result()
        assert not tree.exists()


def test_what_another_process_adds_meanwhile_is_removed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, plain = make_tree(tmp_path / "tree", folders=1), shutil.rmtree

    def with_an_addition(path: Path) -> None:
        monkeypatch.setattr(shutil, "rmtree", plain)
        raise OSError(39, "Directory not empty", str(path))

    monkeypatch.setattr(shutil, "rmtree", with_an_addition)
    remove_tree(tree)
    assert not tree.exists()


def test_a_folder_that_may_not_be_removed_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []

    def refused(path: Path) -> None:
        tries.append(path)
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(PermissionError):
        remove_tree(tmp_path)
    assert len(tries) == 1
