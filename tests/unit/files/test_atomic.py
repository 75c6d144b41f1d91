"""Tests atomic writes of small files, strict JSON, and errors of the disk."""

import errno
import json
import os
import re
import resource
from pathlib import Path

import numpy as np
import pytest

from ftsys.errors import ConfigError, StorageError
from ftsys.files.atomic import atomic_copy, atomic_open, atomic_write_json, atomic_write_text
from ftsys.files.json_safe import json_safe
from ftsys.files.paths import check_output


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic_write_text(path, "old")
    with pytest.raises(RuntimeError, match="boom"), atomic_open(path) as stream:  # noqa: PT012
        stream.write("new")
        raise RuntimeError("boom")
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("name", [".", "", "..", "folder", "folder/..", "file/a.html", "file/a/b.html"])
def test_a_place_that_no_file_can_have_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"^--html '.*' (is a folder: name a file|cannot be made: '.*file' is a file)"
    ):
        check_output("--html", Path(name))


@pytest.mark.parametrize("kind", ["a pipe", "a link to a file", "a link to a pipe", "a link to nothing"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    place, target = tmp_path / "place", tmp_path / "target"
    if kind == "a link to a file":
        target.touch()
    elif "pipe" in kind:
        os.mkfifo(target)
    if kind == "a pipe":
        target.rename(place)
    else:
        place.symlink_to(target)
    with pytest.raises(ConfigError, match="is a link, a pipe or a device: name the file itself"):
        check_output("--html", place)


def test_places_of_files_and_folders_that_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "new", "some/new"):
        check_output("--html", tmp_path / name)
    for name in (".", "new", "some/new"):
        check_output("--png", tmp_path / name, folder=True)
    for name in ("file", "file/below"):
        with pytest.raises(ConfigError, match=r"^--png '.*' cannot be made: '.*file' is a file"):
            check_output("--png", tmp_path / name, folder=True)


def test_a_write_to_a_folder_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=r"cannot write '\.'"):
        atomic_write_text(Path(), "text")
    assert list(tmp_path.iterdir()) == []


def test_the_kernels_refusal_becomes_a_storage_error(tmp_path: Path) -> None:
    """A real refusal: the process may write no file beyond 4 KiB."""
    path, before = tmp_path / "a.txt", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageError, match="the file grew too large"):
            atomic_write_text(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_becomes_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_write_text(tmp_path / "a.txt", "old")
    _fill_the_disk(monkeypatch)
    with pytest.raises(StorageError, match=r"the disk is full\. Free some space") as found:
        atomic_write_text(tmp_path / "a.txt", "new")
    assert found.value.exit_status == 1
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_bytes_and_line_ends_are_kept(tmp_path: Path) -> None:
    with atomic_open(tmp_path / "b", "wb") as stream:
        stream.write(b"\x00\r\n")
    atomic_write_text(tmp_path / "t", "é\r\n\n")
    assert (tmp_path / "b").read_bytes() == b"\x00\r\n"
    assert (tmp_path / "t").read_bytes() == "é\r\n\n".encode()


def test_json_is_strict(tmp_path: Path) -> None:
    value = {"a": float("nan"), "b": [np.float32(0.5), np.int64(3), -np.inf], "c": np.array([1.0, np.nan]), 1: {2, 1}}
    expected = {"a": None, "b": [0.5, 3, None], "c": [1.0, None], "1": [1, 2], "p": "x/y"}
    atomic_write_json(tmp_path / "a.json", {**value, "p": Path("x/y")})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == expected
    with pytest.raises(TypeError, match="of type object cannot be written as JSON"):
        json_safe({"x": object()})


def _fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)


def test_a_copy_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(b"\x00new")
    atomic_write_text(tmp_path / "target", "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(StorageError, match="the disk is full"):
            atomic_copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "old"
    atomic_copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"\x00new"


def _full(handle: int) -> None:
    raise OSError(errno.ENOSPC, "no space")


IN_PLACE = re.compile(r"\.write_text\(|\.write_bytes\(")
MAY_WRITE_IN_PLACE = {
    "ftsys/bench": "measures; nothing reads its files while they are written",
    "ftsys/probe/host.py": "a mark that shows whether nodes share a folder",
    "launcher/commands/config.py": "into a device or a pipe that --output names",
}


def test_small_files_are_written_atomically(repository: Path) -> None:
    """A reader, or a start after a kill, could see half of a file that is written in its place."""
    sources = [path for package in ("ftsys", "launcher") for path in (repository / package).rglob("*.py")]
    names = {str(path.relative_to(repository)) for path in sources if IN_PLACE.search(path.read_text())}
    assert {name for name in names if not name.startswith(tuple(MAY_WRITE_IN_PLACE))} == set()
