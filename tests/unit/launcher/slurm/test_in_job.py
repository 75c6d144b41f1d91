"""Tests the answers that the scripts of slurm/ get."""

import json
from pathlib import Path

import pytest

from launcher.slurm import in_job
from launcher.slurm.in_job import main

RUN = 'output_dir = "runs/x"\n[task]\nname = "paraphrase"\n[data]\nsource = "synthetic"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTSYS_DEVICE", "cpu")
    monkeypatch.setenv("FTSYS_RUN_DIR", str(tmp_path / "runs/x"))
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(list(words)) == 0
    return capsys.readouterr().out.splitlines()


def test_a_job_before_its_first_attempt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device, run_folder, port, attempt = ask(capsys, "job", "17-0", "run.toml", "--train.seed", "7")
    assert (device, run_folder, attempt) == ("cpu", str(folder / "runs/x"), "0")
    assert 10_000 <= int(port) < 65_536
    assert ask(capsys, "job", "17-0", "run.toml")[2] == port
    assert ask(capsys, "job", "17-1", "run.toml", "--output_dir", "other")[1] == str(folder / "other")


def test_each_restart_has_a_port_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ports = {ask(capsys, "job", f"17-{restarts}", "run.toml")[2] for restarts in range(5)}
    assert len(ports) == 5


def write_status(folder: Path, attempt: int, exit_status: int | None, state: str = "running", step: int = 0) -> None:
    run = folder / "runs/x"
    (run / "attempts").mkdir(parents=True, exist_ok=True)
    (run / f"attempts/{attempt:06}.json").write_text("{}")
    status = {"attempt": attempt, "exit": exit_status, "state": state, "step": step}
    (run / "status.json").write_text(json.dumps(status))


def test_only_a_status_of_this_attempt_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "outcome", "0", "1") == ["1"]
    write_status(folder, 2, 76)
    assert ask(capsys, "job", "17-0", "run.toml")[3] == "2"
    assert ask(capsys, "outcome", "1", "1") == ["76"]
    assert ask(capsys, "outcome", "2", "1") == ["1"]


@pytest.mark.parametrize(
    ("written", "ended", "asked", "expected"),
    [
        (0, 1, "", 0),  # a rank that failed after the run was over
        (2, 1, "", 2),
        (76, 1, "yes", 76),
        (75, 0, "yes", 75),
        (75, 143, "yes", 75),
        (75, 0, "", 75),  # SLURM warned the ranks alone
        (75, 1, "", 1),  # a rank was killed, and torchrun stopped the others
        (None, 0, "yes", 75),
        (None, 137, "yes", 75),
        (None, 0, "", 75),
        (None, 1, "", 1),
        (None, 137, "", 137),
    ],
)
def test_the_status_of_a_start(
    folder: Path, capsys: pytest.CaptureFixture[str], written: int | None, ended: int, asked: str, expected: int
) -> None:
    write_status(folder, 1, written)
    assert ask(capsys, "outcome", "0", str(ended), asked) == [str(expected)]


def test_ranks_that_stopped_after_a_step_had_agreed_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as after a signal that did not come from SLURM: their checkpoint is complete."""
    write_status(folder, 1, 75, "stopped", step=40)
    assert ask(capsys, "outcome", "0", "1", "") == ["75"]


def test_a_finished_run_has_nothing_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_status(folder, 1, 0, "done")
    assert ask(capsys, "outcome", "1", "0") == ["0"]


@pytest.mark.parametrize(("content", "expected"), [("77\n", "77"), ("2\n", "2"), ("0\n", "1"), ("", "1"), (None, "1")])
def test_a_refusal_in_the_folder_of_a_finished_run(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    expected: str,
) -> None:
    write_status(folder, 1, 0, "done")
    told = folder / "runs/x/exit"
    monkeypatch.setenv("FTSYS_EXIT_FILE", str(told))
    if content is not None:
        told.write_text(content)
    assert ask(capsys, "outcome", "1", "1") == [expected]


def test_the_end_of_an_earlier_start_is_not_waited_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_status(folder, 1, 0, "done")
    assert ask(capsys, "written", "0") == ["0"]
    assert ask(capsys, "written", "1") == [""]


def test_a_reason_that_comes_late(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_status(folder, 1, None)
    waits: list[float] = []
    monkeypatch.setattr(in_job.time, "sleep", waits.append)
    assert ask(capsys, "written", "0") == [""]
    assert waits == [1] * in_job.RANK_0_WRITES_SECONDS
    monkeypatch.setattr(in_job.time, "sleep", lambda _: write_status(folder, 1, 76))
    assert ask(capsys, "written", "0") == ["76"]


@pytest.mark.parametrize(("written", "kept"), [(None, False), (75, False), (1, True)])
def test_a_failure_that_no_rank_wrote(
    folder: Path, capsys: pytest.CaptureFixture[str], written: int | None, kept: bool
) -> None:
    write_status(folder, 1, written)
    assert ask(capsys, "failed", "0", "1") == [""]
    found = json.loads((folder / "runs/x/status.json").read_text())
    assert found["state"] == ("running" if kept else "failed")
    assert kept or "a rank was killed: the ranks ended with status 1" in found["reason"]


def test_an_attempt_of_another_start_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_job.time, "sleep", lambda _: pytest.fail("it waits for another start"))
    write_status(folder, 1, 77)
    write_status(folder, 2, None)
    assert ask(capsys, "written", "0") == [""]
    assert ask(capsys, "failed", "0", "1") == [""]
    assert json.loads((folder / "runs/x/status.json").read_text())["state"] == "running"
    write_status(folder, 2, 0, "done")
    assert ask(capsys, "outcome", "0", "1") == ["1"]


def test_a_node_has_threads_and_no_interface_where_all_is_one_machine(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (answer,) = ask(capsys, "node", "1", "127.0.0.1")
    assert int(answer) >= 1


def test_a_job_of_one_node_stays_on_the_loopback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.slurm.in_job.interface_towards", lambda peer: "eth0")
    for nodes, interface in (("1", "lo"), ("2", "eth0")):
        monkeypatch.setenv("SLURM_JOB_NUM_NODES", nodes)
        (answer,) = ask(capsys, "node", "1", "192.0.2.1")
        assert answer.split()[1:] == [interface]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["job", "17-0", "none.toml"], "error: run file 'none.toml' does not exist"),
        (["job", "17-0", "run.toml", "--train.sed", "7"], "error: train.sed"),
        (["jab"], "error: 'jab' is not a question: ask one of job, node, written, outcome, failed."),
        ([], "error: '' is not a question"),
    ],
)
def test_what_the_user_must_correct(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_device_that_is_none(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTSYS_DEVICE", "gpu")
    assert main(["job", "17-0", "run.toml"]) == 2
    assert capsys.readouterr().err == "error: FTSYS_DEVICE='gpu' is not a device: write cpu or cuda, or leave it out.\n"


@pytest.mark.parametrize(
    ("build", "gpus", "device"),
    [("+cpu", "8", None), ("+cpu", "0", "cpu"), ("+cu130", "8", "cuda"), ("+cu130", "0", "cuda")],
)
def test_gpus_are_not_left_idle_without_a_word(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    build: str,
    gpus: str,
    device: str | None,
) -> None:
    """As on a cluster whose login node has no GPU: `make install` took the build for CPUs there."""
    monkeypatch.delenv("FTSYS_DEVICE")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", gpus)
    monkeypatch.setattr("launcher.planner.world.version", lambda name: f"2.13.0{build}")
    if device is None:
        assert main(["job", "17-0", "run.toml"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(
            "error: the allocation has 8 GPU(s) on this node, and the installed torch computes on CPUs"
        )
        assert "make install TORCH=cuda" in said
        monkeypatch.setenv("FTSYS_DEVICE", "cpu")
        device = "cpu"
    assert ask(capsys, "job", "17-0", "run.toml")[0] == device


@pytest.mark.parametrize(("named", "refused"), [("MIG-1,MIG-2", True), ("MIG-1", False), ("0,1", False)])
def test_slices_of_gpus_are_no_gpus_for_several_ranks(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    refused: bool,
) -> None:
    monkeypatch.setenv("FTSYS_DEVICE", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert main(["job", "17-0", "run.toml"]) == (2 if refused else 0)
    assert ("need a GPU each. CUDA_VISIBLE_DEVICES='MIG-1,MIG-2'" in capsys.readouterr().err) is refused


def test_the_run_folder_has_the_name_that_the_shell_knows(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Other nodes may know the folder by no other name, as where /home/ada is a link on each machine."""
    link = tmp_path_factory.mktemp("home") / "ada"
    link.symlink_to(folder)
    monkeypatch.chdir(link)
    monkeypatch.setenv("PWD", str(link))
    assert ask(capsys, "job", "17-0", "run.toml")[1] == str(link / "runs/x")
