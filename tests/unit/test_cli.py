"""Tests the command line: wrong input exits with 2 and one message, on any rank, without a traceback."""

import errno
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ftsys import cli
from ftsys.cli import main
from ftsys.console.entry import MOST_FILES, raise_file_limit, run_program
from ftsys.errors import ConfigError, FtsysError, StorageError
from ftsys.run_folder.discover import find_run_folders


def run_file(folder: Path, text: str) -> str:
    path = folder / "run.toml"
    path.write_text(f'output_dir = "{folder / "run"}"\n{text}')
    return str(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train]\nepoch = 3\n", ["train.epochs"]),
        ("[train]\nepochs = 'three'\nseed = -1\n", ["train.epochs", "train.seed"]),
        ('[task]\nname = "mrcp"\n', ["mrcp", "mrpc"]),
        ("[trainer]\nlearning_rate = 1\n", ["train.learning_rate"]),
        ("[trainer]\nweight_decai = 1\n", ["trainer.weight_decai", "weight_decay"]),
    ],
)
def test_wrong_run_files_end_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: list[str]
) -> None:
    assert main(["train", run_file(tmp_path, text)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert all(word in said for word in words)
    assert not (tmp_path / "run").exists()


def test_other_ranks_leave_quietly_with_the_same_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "OTHER_RANKS_WAIT_SECONDS", 0.0)
    monkeypatch.setenv("RANK", "1")
    assert main(["train", run_file(tmp_path, "[train]\nepoch = 3\n")]) == 2
    assert capsys.readouterr().err == ""


def test_a_rank_with_a_log_of_its_own_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "OTHER_RANKS_WAIT_SECONDS", 0.0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("FTSYS_OWN_LOG", "1")
    assert main(["train", run_file(tmp_path, "[train]\nepoch = 3\n")]) == 2
    assert "train.epoch" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ConfigError("no such file"), StorageError("no space")])
def test_a_rank_that_its_launcher_has_not_stopped_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: FtsysError
) -> None:
    for told in (True, False):
        error.told = told
        assert status_of_rank_1(error, monkeypatch) == error.exit_status
        assert capsys.readouterr().err == ("" if told else f"error: rank 1: {error}\n")


def status_of_rank_1(error: FtsysError, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the exit status of rank 1 under torchrun, where its command raises `error`."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "OTHER_RANKS_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(cli, "_dispatch", fail)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    return main(["train", "run.toml"])


def test_the_rank_argument_of_the_deepspeed_launcher_is_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--local_rank=1", "config", "no-such-file.toml"]) == 2
    assert "no-such-file.toml" in capsys.readouterr().err


def test_config_says_where_each_value_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_file(tmp_path, "[task]\nname = 'mrpc'\n[train]\nepochs = 2\n")
    assert main(["config", path, "--train.seed", "7"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    origins = {words[0]: words[2:] for words in lines}
    assert origins["train.seed"][0] == "command"
    assert origins["train.epochs"][0] == "file"
    assert origins["train.learning_rate"][0].startswith("default")


def test_verify_refuses_what_is_none_of_the_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_shortened_flags_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", run_file(tmp_path, "[task]\nname = 'mrpc'\n"), "--over"]) == 2
    assert "--over" in capsys.readouterr().err


def test_overrides_may_stand_before_the_run_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--train.seed", "7", run_file(tmp_path, "[task]\nname = 'mrpc'\n")]) == 0
    assert "train.seed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "own_process", "lean"),
    [("train", True, True), ("predict", True, True), ("train", False, False), ("config", True, False)],
)
def test_only_a_process_that_is_a_rank_imports_fast(
    command: str, own_process: bool, lean: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []
    monkeypatch.setattr(cli, "begin_fast_import", lambda: started.append(True))
    assert main([command, str(tmp_path / "missing.toml")], own_process=own_process) == 2
    assert started == [True] * lean


@pytest.mark.parametrize(
    ("command", "own_process", "settled"),
    [
        ("train", True, True),
        ("predict", True, True),
        ("prepare", True, True),
        ("config", True, False),
        ("train", False, False),
    ],
)
def test_torch_gets_a_folder_before_it_is_imported(
    command: str, own_process: bool, settled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(cli, "settle_inductor", lambda: order.append("settled"))
    monkeypatch.setattr(cli, "_join_tasks", lambda _: order.append("joined"))
    monkeypatch.setattr(cli, "begin_fast_import", lambda: None)
    main([command, str(tmp_path / "missing.toml")], own_process=own_process)
    assert order[:1] == ["settled"] if settled else "settled" not in order


def test_predictions_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.csv").mkdir()
    (tmp_path / "rows.csv").write_text("text\na\n")
    words = [str(tmp_path), str(tmp_path / "rows.csv"), "--output", str(tmp_path / "out.csv"), "--overwrite"]
    assert main(["predict", *words]) == 2
    assert "out.csv' is a folder: name a file" in capsys.readouterr().err
    run = run_file(tmp_path, "[task]\nname = 'paraphrase'\n[data]\nsource = 'synthetic'\n")
    assert main(["predict", run, "--output", str(tmp_path / "rows.csv")]) == 2
    assert "rows.csv' is a file. Name another place" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (("predict", "run.toml"), False),
        (("predict", "--output", "folder", "run.toml", "--train.seed", "1"), False),
        (("predict", "a-file"), False),
        (("predict", "model", "rows.csv", "--output", "o.csv"), True),
        (("predict", "--help"), True),
        (("train", "model"), False),
        ((), False),
    ],
)
def test_predict_takes_a_run_file_or_a_model_with_files(
    words: tuple[str, ...], files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    assert cli._scores_files(words) == files


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("ftsys", ["predict", "model", b"caf\xe9.csv"]),
        ("ftsys", ["train", b"caf\xe9.toml"]),
        ("ftsys", ["report", b"caf\xe9", "--html", "page.html"]),
        ("launcher", ["run", "run.toml", "--output_dir", b"caf\xe9"]),
    ],
)
def test_an_argument_that_is_not_utf_8(tmp_path: Path, program: str, words: list[str | bytes]) -> None:
    done = subprocess.run([sys.executable, "-m", program, *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: argument 'caf\\udce9.*' has bytes that are not UTF-8: rename .*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("told", [True, False])
def test_a_refusal_is_told_to_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: bool
) -> None:
    """slurm/job.sh reads it: torchrun turns every exit status into 1."""
    (tmp_path / "file").touch()
    path = tmp_path / ("exit" if told else "file/exit")
    monkeypatch.setenv("FTSYS_EXIT_FILE", str(path))
    assert main(["train", run_file(tmp_path, "[train]\nepoch = 3\n")]) == 2
    assert (path.read_text() == "2\n") if told else not path.exists()
    assert ("The job ends with 1 instead of 2" in "".join(capsys.readouterr())) is not told


def test_what_may_not_be_read_is_wrong_input(capfd: pytest.CaptureFixture[str]) -> None:
    def private() -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/home/other/run/status.json")

    assert run_program(private) == 2
    assert capfd.readouterr().err.startswith("error: '/home/other/run/status.json': permission denied. Ask its owner")


def test_a_private_folder_among_the_runs_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").touch()
    is_file = Path.is_file

    def denied(path: Path) -> bool:
        if path.parent.name == "private":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", denied)
    assert find_run_folders(tmp_path) == [tmp_path / "mine"]


def test_a_process_may_open_files_for_many_ranks() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[0]), before[1]))
        raise_file_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == (min(MOST_FILES, hard) if hard != resource.RLIM_INFINITY else MOST_FILES)
        assert hard == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
