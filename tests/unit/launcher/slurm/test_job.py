"""Tests `ftlaunch sbatch`, `status`, `logs` and `cancel` against stand-ins for SLURM's commands."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.cli import main

RUN = 'output_dir = "runs/x"\n[task]\nname = "paraphrase"\n[data]\nsource = "synthetic"\n'
Commands = Callable[[str, str], None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a run file, whose `bin` comes first on PATH."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(RUN)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path


@pytest.fixture
def stand_in(folder: Path) -> Commands:
    """Return a function that makes a command, which appends its arguments to NAME.called and then runs a shell text."""

    def make(name: str, text: str) -> None:
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/{name}.called\n{text}\n')
        path.chmod(0o755)

    return make


def of_job(folder: Path, number: str = "17") -> Path:
    logs = folder / "runs/x/logs"
    logs.mkdir(parents=True)
    (logs / "slurm-job").write_text(f"{number}\n")
    return folder / "runs/x"


def test_a_run_is_submitted_and_its_job_remembered(
    folder: Path, stand_in: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in("sbatch", "echo '17;cluster'")
    assert main(["sbatch", "run.toml", "--cpu", "--nodes", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"job 17: run, 2 node(s); results in {folder}/runs/x",
        "  ftlaunch status runs/x          show its state",
        "  ftlaunch logs runs/x --follow   follow its log",
        "  ftlaunch cancel runs/x          end it",
    ]
    logs = folder / "runs/x/logs"
    assert (logs / "slurm-job").read_text() == "17\n"
    assert (folder / "sbatch.called").read_text() == f"--parsable {logs}/job.sbatch\n"
    main(["sbatch", "run.toml", "--cpu", "--nodes", "2", "--dry-run"])
    assert (logs / "job.sbatch").read_text() == capsys.readouterr().out


def test_commands_in_messages_name_a_folder_with_a_space(
    folder: Path, stand_in: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = folder / "my runs"
    (mine / "logs").mkdir(parents=True)
    (mine / "logs/slurm-job").write_text("17\n")
    stand_in("squeue", "echo 'PENDING||0:00|Priority'")
    assert main(["sbatch", "run.toml", "--cpu", "--output_dir", "my runs"]) == 2
    assert main(["logs", str(mine)]) == 2
    commands = [shlex.split(line.split("`")[1]) for line in capsys.readouterr().err.splitlines()]
    assert commands == [["ftlaunch", "cancel", str(mine)], ["ftlaunch", "status", str(mine)]]


def test_a_run_folder_of_a_live_job_is_not_given_to_another(
    folder: Path, stand_in: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    of_job(folder)
    stand_in("squeue", "echo 'PENDING||0:00|Priority'")
    stand_in("sbatch", "echo 18")
    assert main(["sbatch", "run.toml", "--cpu"]) == 2
    assert f"run folder '{folder}/runs/x' belongs to job 17 (PENDING): wait for it" in capsys.readouterr().err
    assert not (folder / "sbatch.called").exists()
    stand_in("squeue", "echo 'COMPLETED|node1|0:10|None'")
    assert main(["sbatch", "run.toml", "--cpu"]) == 0
    assert (folder / "runs/x/logs/slurm-job").read_text() == "18\n"


def test_sbatch_refuses_in_its_own_words(folder: Path, stand_in: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    assert main(["sbatch", "run.toml", "--cpu", "--partition", "none"]) == 2
    assert "failed: sbatch: error: invalid partition" in capsys.readouterr().err
    assert not (folder / "runs/x/logs/slurm-job").exists()


def test_a_machine_without_slurm(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder / "bin"))
    assert main(["sbatch", "run.toml", "--cpu"]) == 2
    expected = "error: 'sbatch' is not found: run this on a login node of a SLURM cluster.\n"
    assert capsys.readouterr().err == expected


def test_status(folder: Path, stand_in: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = of_job(folder)
    stand_in("squeue", "echo 'PENDING||0:00|Resources'")
    assert main(["status", "runs/x"]) == 0
    assert capsys.readouterr().out == "job 17: PENDING, 0:00 used, Resources\nrun: not started yet\n"
    stand_in("squeue", "echo 'RUNNING|node[1-2]|1:23|None'")
    status = {"state": "running", "exit": None, "reason": "", "phase": "train", "step": 12, "attempt": 2, "time": 0}
    (run_folder / "status.json").write_text(json.dumps(status))
    assert main(["status", "runs/x"]) == 0
    assert capsys.readouterr().out == (
        "job 17: RUNNING on node[1-2], 1:23 used\nrun: running, step 12, train, attempt 2\n"
    )


def test_status_of_a_job_that_slurm_has_forgotten(
    folder: Path, stand_in: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    of_job(folder)
    stand_in("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert main(["status", "runs/x"]) == 0
    assert capsys.readouterr().out == "job 17: SLURM has forgotten it\nrun: not started yet\n"
    stand_in("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert main(["status", "runs/x"]) == 2
    assert "Unable to contact slurm controller" in capsys.readouterr().err


def test_logs(folder: Path, stand_in: Commands, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    log = of_job(folder) / "logs/slurm-17.log"
    log.write_text("first line\n")
    assert main(["logs", "runs/x"]) == 0
    assert capfdbinary.readouterr().out == b"first line\n"


def test_logs_are_followed_until_the_job_has_ended(
    folder: Path, stand_in: Commands, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.commands.logs.LOG_POLL_SECONDS", 0.01)
    log = of_job(folder) / "logs/slurm-17.log"
    # The log comes at the second look, grows at each, and the job has ended at the fourth.
    stand_in(
        "squeue",
        f"looks=$(wc -l < {folder}/squeue.called)\n"
        f'[ "$looks" -lt 2 ] || echo "line $looks" >> {log}\n'
        '[ "$looks" -lt 4 ] && echo "RUNNING|node1|0:01|None" || echo "COMPLETED|node1|0:02|None"',
    )
    assert main(["logs", "runs/x", "--follow"]) == 0
    assert capfdbinary.readouterr().out == b"line 2\nline 3\nline 4\n"


def test_cancel(folder: Path, stand_in: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    of_job(folder)
    stand_in("squeue", "echo 'RUNNING|node1|0:10|None'")
    stand_in("scancel", "")
    assert main(["cancel", "runs/x"]) == 0
    assert capsys.readouterr().out == "job 17 will end: ranks that are training save a checkpoint first\n"
    assert (folder / "scancel.called").read_text() == "17\n"
    stand_in("squeue", "echo 'COMPLETED|node1|0:10|None'")
    assert main(["cancel", "runs/x"]) == 0
    assert capsys.readouterr().out == "job 17 has ended already (COMPLETED)\n"
    assert (folder / "scancel.called").read_text() == "17\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "runs/x"], "'runs/x' is not a run folder: there is no status.json and no SLURM job in it."),
        (["logs", "runs/x"], "'runs/x' is not the run folder of a SLURM job: logs/slurm-job is not in it."),
        (["cancel", "runs/x"], "'runs/x' is not the run folder of a SLURM job: logs/slurm-job is not in it."),
        (
            ["cancel", "runs/x", "--train.seed", "7"],
            "--train.seed 7: this command reads no run file, so nothing can be overridden: leave it out.",
        ),
    ],
)
def test_a_folder_without_a_job(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_damaged_job_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = of_job(folder, "17; reboot")
    assert main(["cancel", "runs/x"]) == 2
    assert "holds '17; reboot', which is not a job number: remove the file." in capsys.readouterr().err
    with (run_folder / "logs/slurm-job").open("w") as stream:
        stream.truncate(2**32)
    assert main(["cancel", "runs/x"]) == 2
    assert "slurm-job' cannot be read (it has more than 64 MiB): remove the file." in capsys.readouterr().err
    (run_folder / "logs/slurm-job").unlink()
    (run_folder / "status.json").write_text("{}")
    assert main(["status", "runs/x"]) == 2
    assert "status.json' is damaged (" in capsys.readouterr().err
