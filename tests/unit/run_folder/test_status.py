"""Tests status.json: written by the newest attempt only, read strictly, and read after a crash."""

import json
from pathlib import Path

import pytest

from ftsys.errors import DamagedError, RunFolderError, StorageError
from ftsys.run_folder.claim import claim_run_folder
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import STATE_OF, exit_of_this_start, read_status, read_status_after_crash, write_status
from ftsys.run_folder.status_writer import StatusWriter, correct_status

IDENTITY = {"task": {"name": "mrpc"}}


def test_status_is_written_and_read(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    attempt = claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt
    assert write_status(tmp_path, "stopped", 75, "SIGTERM", "train", 120, attempt)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.exit, status.reason, status.phase) == ("stopped", 75, "SIGTERM", "train")
    assert (status.step, status.attempt) == (120, 1)
    keys = {"state", "exit", "reason", "phase", "step", "attempt", "time"}
    assert set(json.loads((tmp_path / "status.json").read_text())) == keys
    assert STATE_OF[75] == "stopped"


@pytest.mark.parametrize("attempt", [0, 1])
def test_an_earlier_attempt_does_not_change_the_status(tmp_path: Path, attempt: int) -> None:
    for _ in range(2):
        newest = claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt
    assert write_status(tmp_path, "running", None, "", "train", 10, newest)
    assert not write_status(tmp_path, "failed", 1, "cut off", "train", 99, attempt)
    status = read_status(tmp_path)
    assert status is not None
    assert status.step == 10


def test_a_damaged_status_is_told(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "done"}')
    with pytest.raises(RunFolderError, match="is damaged"):
        read_status(tmp_path)


@pytest.mark.parametrize(
    ("content", "fields"),
    [(None, {}), ("{", {}), ("[1]", {}), ('{"exit": 75, "attempt": 2}', {"exit": 75, "attempt": 2})],
)
def test_after_a_crash_a_damaged_status_is_none(tmp_path: Path, content: str | None, fields: dict[str, int]) -> None:
    if content is not None:
        (tmp_path / "status.json").write_text(content)
    assert read_status_after_crash(tmp_path) == fields
    assert exit_of_this_start(tmp_path, 1) == fields.get("exit")
    assert exit_of_this_start(tmp_path, 2) is None


def test_a_damaged_status_is_written_anew(tmp_path: Path) -> None:
    attempt = claim_run_folder(tmp_path, "abc", overwrite=False).attempt
    (tmp_path / "status.json").write_text("{")
    StatusWriter(tmp_path, attempt, "train").write(75, "SIGTERM")
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.step, status.phase) == ("stopped", 0, "train")


def test_the_last_status_keeps_the_step_of_its_own_attempt_only(tmp_path: Path) -> None:
    for step in (7, 0):  # the second attempt has written no status yet
        attempt = claim_run_folder(tmp_path, "abc", overwrite=False).attempt
        if step:
            write_status(tmp_path, "running", None, "", "train", step, attempt)
        with pytest.raises(ValueError, match="boom"), StatusWriter(tmp_path, attempt).ending():
            raise ValueError("boom")
        status = read_status(tmp_path)
        assert status is not None
        assert (status.exit, status.reason, status.step) == (1, "ValueError: boom", step)


def test_a_full_disk_does_not_hide_why_an_attempt_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("status.json cannot be written (No space left on device).")

    monkeypatch.setattr(StatusWriter, "write_for_rank_0", full)
    with pytest.raises(ValueError, match="boom"), StatusWriter(tmp_path, 1).ending():
        raise ValueError("boom")
    told = "status.json does not say how this attempt ended: status.json cannot be written (No space left on device).\n"
    assert capsys.readouterr().err == told, "one error alone, which is the attempt's own"
    with pytest.raises(StorageError), StatusWriter(tmp_path, 1).ending():
        pass


def test_the_first_end_of_an_attempt_is_kept(tmp_path: Path) -> None:
    attempt = claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt
    writer = StatusWriter(tmp_path, attempt)
    for exit_status, reason in ((None, ""), (1, "rank 0 died"), (1, "rank 1 died"), (0, ""), (None, "")):
        writer.write_for_rank_0(exit_status, reason)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.reason) == ("failed", "rank 0 died")
    StatusWriter(tmp_path, claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt).write_for_rank_0(None, "")
    assert read_status_after_crash(tmp_path)["state"] == "running"


@pytest.mark.parametrize(
    ("told", "outcome", "kept"),
    [
        (None, 1, False),  # killed before it could write an end
        (75, 1, False),  # stopped because another rank had failed
        (75, 75, True),
        (76, 1, True),
        (1, 1, True),
        (None, 0, True),
    ],
)
def test_the_launcher_corrects_what_ranks_could_not_know(
    tmp_path: Path, told: int | None, outcome: int, kept: bool
) -> None:
    attempt = claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt
    own = "running" if told is None else STATE_OF[told]
    assert write_status(tmp_path, own, told, "SIGTERM", "train", 7, attempt)
    correct_status(tmp_path, 0, outcome, "rank 1 on a was killed by SIGKILL")
    status = read_status(tmp_path)
    assert status is not None
    expected = (own, told, "SIGTERM") if kept else ("failed", 1, "rank 1 on a was killed by SIGKILL")
    assert (status.state, status.exit, status.reason) == expected
    assert (status.phase, status.step, status.attempt) == ("train", 7, 1)


def test_a_start_that_claimed_nothing_corrects_nothing(tmp_path: Path) -> None:
    attempt = claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt
    correct_status(tmp_path, attempt, 1, "the ranks could not be started")
    assert read_status(tmp_path) is None
    correct_status(tmp_path / "other", 0, 1, "no folder")
    assert not (tmp_path / "other").exists()


def test_a_start_does_not_touch_the_attempt_of_a_later_one(tmp_path: Path) -> None:
    """Such as after a requeue, while the earlier start of the job still ends."""
    attempts = [claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt for _ in range(2)]
    assert write_status(tmp_path, "stopped", 75, "SIGTERM", "train", 7, attempts[1])
    correct_status(tmp_path, 0, 1, "rank 1 on a was killed by SIGKILL")
    assert read_status_after_crash(tmp_path)["state"] == "stopped"
    assert (exit_of_this_start(tmp_path, 0), exit_of_this_start(tmp_path, 1)) == (None, 75)


def test_a_start_that_died_before_its_first_status(tmp_path: Path) -> None:
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    correct_status(tmp_path, 0, 1, "rank 0 on a was killed by SIGKILL")
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.phase, status.step) == ("failed", "prepare", 0)


def test_what_is_no_folder_has_no_status(tmp_path: Path) -> None:
    (tmp_path / "run.toml").touch()
    assert read_status(tmp_path / "run.toml") is None
    assert read_results(tmp_path / "run.toml") is None
    for name, read in (("status.json", read_status), ("results.json", read_results)):
        (tmp_path / name).mkdir()
        with pytest.raises(DamagedError, match=f"{name}' is damaged"):
            read(tmp_path)
