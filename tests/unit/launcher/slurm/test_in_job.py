"""Tests the answers that the scripts of slurm/ get."""

import json
from pathlib import Path

import pytest

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


def test_only_a_status_of_this_attempt_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "outcome", "0") == [""]
    (folder / "runs/x/attempts").mkdir(parents=True)
    (folder / "runs/x/attempts/000002.json").write_text("{}")
    (folder / "runs/x/status.json").write_text(json.dumps({"attempt": 2, "exit": 75}))
    assert ask(capsys, "job", "17-0", "run.toml")[3] == "2"
    assert ask(capsys, "outcome", "1") == ["75"]
    assert ask(capsys, "outcome", "2") == [""]


def test_a_node_has_threads_and_no_interface_where_all_is_one_machine(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (answer,) = ask(capsys, "node", "1", "127.0.0.1")
    assert int(answer) >= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["job", "17-0", "none.toml"], "error: run file 'none.toml' does not exist"),
        (["job", "17-0", "run.toml", "--train.sed", "7"], "error: train.sed"),
        (["jab"], "error: 'jab' is not a question: ask one of job, node, outcome."),
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
