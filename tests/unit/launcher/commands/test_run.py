"""Tests the parts of `ftlaunch run` that start nothing: its announcement, the folder's name, and its report."""

import queue
import signal
from pathlib import Path

import pytest

from ftsys.errors import StorageError
from ftsys.run_folder.claim import claim_run_folder
from ftsys.run_folder.status import read_status, write_status
from launcher.backends.select import Choice
from launcher.command_lines import LaunchSpec
from launcher.commands.run import _report, announcement
from launcher.controller import Controller
from launcher.exit_report import RankExit
from launcher.host.folders import current_folder
from launcher.planner.world import World
from launcher.protocol import Message

LAUNCH = LaunchSpec("torchrun", 1, 2, "127.0.0.1", 17_000, "id", ("train", "run.toml"), "logs")
LOCAL = Choice("local", "no SLURM allocation, no hostfile")


def ready(*threads: str) -> dict[int, Message]:
    return {number: {"host": f"node{number + 1}", "threads": each} for number, each in enumerate(threads)}


def test_one_machine() -> None:
    world = World(ranks=2, local_ranks=2)
    assert announcement(LOCAL, world, LAUNCH, ready("1 thread each on cores of their own")) == (
        "ftlaunch: local (no SLURM allocation, no hostfile): torchrun starts 2 CPU ranks, "
        "1 thread each on cores of their own, port 17000"
    )
    assert "starts 1 GPU rank, 8 threads each, port" in announcement(
        LOCAL, World(device="cuda"), LAUNCH, ready("8 threads each")
    )


@pytest.mark.parametrize(
    ("count", "where"),
    [
        (2, "on node1, node2, 4 t"),
        (4, "on node1, node2, node3, node4, 4 t"),
        (64, "on 64 machines, node1 to node64, 4 t"),
    ],
)
def test_several_machines(count: int, where: str) -> None:
    world = World(ranks=count, nodes=count)
    assert where in announcement(Choice("hostfile", "--hostfile hosts"), world, LAUNCH, ready(*["4 threads"] * count))


def test_machines_that_differ() -> None:
    said = announcement(
        Choice("slurm", "inside SLURM job 1"), World(ranks=2, nodes=2), LAUNCH, ready("4 threads", "8 threads")
    )
    assert "4 threads or 8 threads" in said


def test_the_folder_has_the_name_that_the_shell_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "link")
    assert current_folder({"PWD": str(tmp_path / "link")}) == tmp_path / "link"
    for stale in (str(tmp_path / "other"), str(tmp_path / "gone"), "link", ""):
        assert current_folder({"PWD": stale}) == tmp_path / "real"
    assert current_folder({}) == tmp_path / "real"


def test_the_report_of_a_killed_rank_is_in_the_status_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ranks that torchrun stops because another one was killed write that they stopped early."""
    attempt = claim_run_folder(tmp_path, {"task": "mrpc"}, overwrite=False).attempt
    assert write_status(tmp_path, "stopped", 75, "by SIGTERM", "train", 7, attempt)
    controller = Controller([], queue.Queue())
    controller.rank_exits += [RankExit(1, -signal.SIGKILL, "a"), RankExit(0, 75, "a")]
    assert _report(controller, tmp_path, 0, tmp_path / "logs") == 1
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.exit, status.step) == ("failed", 1, 7)
    assert status.reason in capsys.readouterr().err
    assert "rank 1 on a was killed by SIGKILL" in status.reason


def test_the_end_of_another_start_is_not_this_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attempts = [claim_run_folder(tmp_path, {"task": "mrpc"}, overwrite=False).attempt for _ in range(2)]
    assert write_status(tmp_path, "done", 0, "", "finish", 9, attempts[1])
    controller = Controller([], queue.Queue())
    controller.rank_exits += [RankExit(0, 77, "a"), RankExit(1, 77, "a")]
    assert _report(controller, tmp_path, 0, tmp_path / "logs") == 77
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.attempt) == ("done", 2)


def test_a_status_that_cannot_be_written_does_not_hide_the_rank_that_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("status.json cannot be written (No space left on device).")

    monkeypatch.setattr("launcher.commands.run.correct_status", full)
    controller = Controller([], queue.Queue())
    controller.rank_exits.append(RankExit(1, -signal.SIGBUS, "a"))
    assert _report(controller, tmp_path, 0, tmp_path / "logs") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: rank 1 on a was killed by SIGBUS")
    assert second == "error: status.json cannot be written (No space left on device)."
