"""Tests claims of run folders: identities, attempts, two starts at once, overwriting, unwritable folders."""

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ftsys.errors import ConfigError, RunFolderError, StorageError
from ftsys.files.atomic import atomic_write_json
from ftsys.run_folder import attempts
from ftsys.run_folder.attempts import check_still_ours, highest_attempt, read_owner
from ftsys.run_folder.claim import claim_run_folder

IDENTITY: dict[str, Any] = {"task": {"name": "mrpc"}, "batch": {"global_size": 8}, "train": {"seed": 42}}
OTHER: dict[str, Any] = {"task": {"name": "mrpc"}, "batch": {"global_size": 32}, "train": {"seed": 42, "epochs": 3}}


def _finish(folder: Path, **more: Any) -> None:
    atomic_write_json(folder / "results.json", {"task": "mrpc", **more})


def test_each_start_raises_the_attempt(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    claims = [claim_run_folder(folder, IDENTITY, overwrite=False) for _ in range(3)]
    assert [claim.attempt for claim in claims] == [1, 2, 3]
    assert not any(claim.finished for claim in claims)
    owner = json.loads((folder / "owner.json").read_text())
    assert owner == read_owner(folder)
    assert (owner["attempt"], owner["first_attempt"], owner["identity"]) == (3, 1, IDENTITY)
    assert owner["pid"] == os.getpid()
    assert set(owner) == {"identity", "attempt", "first_attempt", "host", "pid", "command", "time"}
    assert not list(folder.rglob("*.tmp"))


def test_an_identity_may_be_a_hash_or_hold_tuples(tmp_path: Path) -> None:
    claim_run_folder(tmp_path / "hash", "abc", overwrite=False)
    with pytest.raises(RunFolderError, match="it is 'abc', this one is 'abd'"):
        claim_run_folder(tmp_path / "hash", "abd", overwrite=False)
    claim_run_folder(tmp_path / "tuple", {"labels": ("a", "b")}, overwrite=False)
    assert claim_run_folder(tmp_path / "tuple", {"labels": ("a", "b")}, overwrite=False).attempt == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_another_runs_folder_is_refused_by_every_rank(tmp_path: Path, rank: int) -> None:
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    before = _content(tmp_path)
    with pytest.raises(RunFolderError) as found:
        claim_run_folder(tmp_path, OTHER, overwrite=False, rank=rank)
    assert found.value.exit_status == 77
    message = str(found.value)
    assert "batch.global_size is 8 there and 32 here" in message
    assert "train.epochs is None there and 3 here" in message
    assert "task.name" not in message
    assert "--overwrite" in message
    assert _content(tmp_path) == before


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert claim_run_folder(folder, IDENTITY, overwrite=False, rank=1).attempt == 0
    assert claim_run_folder(folder, IDENTITY, overwrite=True, rank=1).attempt == 0
    assert not folder.exists()
    claim_run_folder(folder, IDENTITY, overwrite=False)
    before = _content(folder)
    claim = claim_run_folder(folder, IDENTITY, overwrite=True, rank=3)
    assert (claim.attempt, claim.finished) == (0, False)
    assert _content(folder) == before


@pytest.mark.parametrize("rank", [0, 1])
def test_a_finished_run_is_left_as_it_is(tmp_path: Path, rank: int) -> None:
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    _finish(tmp_path, attempt=1)
    before = _content(tmp_path)
    claim = claim_run_folder(tmp_path, IDENTITY, overwrite=False, rank=rank)
    assert (claim.finished, claim.attempt) == (True, 1 if rank == 0 else 0)
    assert _content(tmp_path) == before
    with pytest.raises(RunFolderError, match="belongs to another run"):
        claim_run_folder(tmp_path, OTHER, overwrite=False, rank=rank)


def test_results_without_an_owner_are_refused(tmp_path: Path) -> None:
    _finish(tmp_path)
    with pytest.raises(RunFolderError, match="unknown run"):
        claim_run_folder(tmp_path, IDENTITY, overwrite=False)


@pytest.mark.parametrize("content", ["{", "[1]", '{"attempt": "x"}'])
def test_damaged_results_are_told(tmp_path: Path, content: str) -> None:
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(RunFolderError, match="is damaged"):
        claim_run_folder(tmp_path, IDENTITY, overwrite=False)


@pytest.mark.parametrize("content", ["", "null", '{"identity": 1}'])
def test_a_damaged_record_is_told_and_overwritten_on_demand(tmp_path: Path, content: str) -> None:
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    (tmp_path / "attempts" / "000001.json").write_text(content)
    with pytest.raises(RunFolderError, match="cannot be read"):
        claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    assert claim_run_folder(tmp_path, IDENTITY, overwrite=True).attempt == 2


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["model", "checkpoints", "predictions"])
def test_what_stands_where_a_run_writes_a_folder_is_told_at_the_start(
    tmp_path: Path, name: str, rank: int, overwrite: bool
) -> None:
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(ConfigError, match=f"{tmp_path / name}' is a link that leads nowhere.*name another output_dir"):
        claim_run_folder(tmp_path, IDENTITY, overwrite, rank)
    (tmp_path / "nowhere").touch()
    with pytest.raises(ConfigError, match=f"{tmp_path / name}' is a file, and the run writes a folder"):
        claim_run_folder(tmp_path, IDENTITY, overwrite, rank)
    (tmp_path / "nowhere").unlink()
    (tmp_path / "nowhere").mkdir()
    assert not claim_run_folder(tmp_path, IDENTITY, overwrite, rank).finished


def test_a_newer_attempt_stops_the_older_one(tmp_path: Path) -> None:
    first = claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    check_still_ours(tmp_path, first.attempt)
    second = claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    check_still_ours(tmp_path, second.attempt)
    with pytest.raises(RunFolderError, match="belongs to attempt 2 now; this is attempt 1") as found:
        check_still_ours(tmp_path, first.attempt)
    assert found.value.exit_status == 77


def test_a_removed_folder_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is gone"):
        check_still_ours(tmp_path / "nowhere", 1)


def test_starts_at_the_same_moment_get_different_attempts(tmp_path: Path) -> None:
    gate, found = threading.Barrier(8), []

    def start() -> None:
        gate.wait()
        found.append(claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 9))
    assert highest_attempt(tmp_path) == 8


def test_two_runs_that_start_at_the_same_moment_do_not_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other run slips in after our look at the folder: the one who comes second is refused."""
    real = attempts.atomic_write_json

    def slow(path: Path, value: object) -> None:
        monkeypatch.setattr(attempts, "atomic_write_json", real)
        claim_run_folder(tmp_path, OTHER, overwrite=False)
        real(path, value)

    monkeypatch.setattr(attempts, "atomic_write_json", slow)
    with pytest.raises(RunFolderError, match="another run"):
        claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    owner = read_owner(tmp_path)
    assert owner is not None
    assert owner["identity"] == OTHER


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    assert [claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt for _ in range(2)] == [1, 2]
    assert not attempts.take_attempt(tmp_path, 2, {}), "taken already"
    assert not list((tmp_path / "attempts").glob(".*"))


def test_an_output_dir_below_a_file_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output_dir='.*file/run' cannot be written \(Not a directory\)"):
        claim_run_folder(tmp_path / "file" / "run", IDENTITY, overwrite=False)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_an_unwritable_folder_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match="cannot be written"):
        claim_run_folder(tmp_path / "run", IDENTITY, overwrite=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ConfigError, match="Permission denied"):
        claim_run_folder(tmp_path / "run", IDENTITY, overwrite=False)


def test_a_full_disk_at_the_claim_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill_the_disk(monkeypatch)
    with pytest.raises(StorageError, match="the disk is full"):
        claim_run_folder(tmp_path / "run", IDENTITY, overwrite=False)


def _fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
