"""Tests output whose reader is gone or hostile: closed pipes and terminals, full disks, escapes in files.

A reader that closes the pipe (`| head -1`) has what it wanted: the command goes on without output, and its exit status
is that of its work.
"""

import ast
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftsys.console.printer import plain
from tests.end_to_end.commands import SECONDS, environment, write_run_file

PROGRAMS = ("ftsys", "launcher")


def start(*words: str | Path, **streams: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", *map(str, words)], env=environment(), **streams)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_file(tmp_path_factory.mktemp("pipes"))


@pytest.mark.parametrize(
    "words",
    [
        ("ftsys", "config"),
        ("ftsys", "prepare"),
        ("launcher", "plan", "--cpu"),
        ("launcher", "plan", "--cpu", "--json"),
        ("launcher", "config", "--cpu"),
        ("launcher", "sbatch", "--cpu", "--dry-run"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("both", [False, True], ids=["stdout", "both"])
def test_a_pipe_without_a_reader_changes_neither_status_nor_errors(
    words: tuple[str, ...], both: bool, run_file: Path
) -> None:
    read, write = os.pipe()
    os.close(read)
    program, command, *flags = words
    errors = write if both else subprocess.PIPE
    process = start(program, command, run_file, *flags, stdout=write, stderr=errors)
    os.close(write)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert both or b"Traceback" not in said
    assert both or b"BrokenPipe" not in said


def test_training_goes_on_when_its_reader_leaves(tmp_path: Path, tiny_model: Path) -> None:
    run_file = write_run_file(tmp_path, model=tiny_model)
    process = start("ftsys", "train", run_file, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(SECONDS) == 0
    assert json.loads((tmp_path / "run/results.json").read_text())["steps"] == 5


def test_training_saves_when_its_terminal_is_closed(tmp_path: Path, tiny_model: Path) -> None:
    """A terminal that closes sends HUP, and every later write to it fails."""
    run_file = write_run_file(tmp_path, model=tiny_model)
    master, slave = pty.openpty()
    flags = ("--train.max_steps", "100000")
    process = start("ftsys", "train", run_file, *flags, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    while b"steps" not in said:
        said += os.read(master, 4096)
    os.close(master)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    assert process.wait(SECONDS) == 75
    assert list((tmp_path / "run/checkpoints").glob("step-*"))


def test_nohup_outlives_its_terminal(tmp_path: Path, tiny_model: Path) -> None:
    run_file = write_run_file(tmp_path, model=tiny_model)
    command = ["nohup", sys.executable, "-m", "ftsys", "train", str(run_file)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while b"step" not in (tmp_path / "log").read_bytes():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGHUP)
        assert process.wait(SECONDS) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("words", "full", "status"),
    [
        (("ftsys", "config"), "stdout", 1),
        (("ftsys", "train"), "stdout", 1),
        (("ftsys", "train"), "stderr", 0),
        (("ftsys", "report"), "stdout", 1),
        (("launcher", "plan", "--cpu"), "stdout", 1),
        (("ftsys", "config"), "stderr", 0),
        (("ftsys", "prepare"), "stderr", 0),
    ],
)
def test_a_full_disk_behind_an_output(words: tuple[str, ...], full: str, status: int, run_file: Path) -> None:
    """Lost results are an error, lost messages are none."""
    program, command, *flags = words
    if command == "report":
        run_file = run_file.with_name("reported")
        run_file.mkdir()
        ended = {"state": "failed", "exit": 1, "reason": "no memory", "phase": "train", "step": 3}
        (run_file / "status.json").write_text(json.dumps({**ended, "attempt": 1, "time": 0.0}))
    other = {"stdout": "stderr", "stderr": "stdout"}[full]
    with Path("/dev/full").open("wb") as disk:
        streams: dict[str, int] = {full: disk.fileno(), other: subprocess.PIPE}
        process = start(program, command, run_file, *flags, **streams)
        said = b"".join(part or b"" for part in process.communicate(timeout=SECONDS))
    assert process.returncode == status
    assert b"Traceback" not in said
    assert (b"error: standard output cannot be written (No space left on device)" in said) == (status == 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_a_copied_log() -> None:
    program = (
        "from ftsys.console import entry, printer\n"
        "from ftsys.errors import StorageError\n"
        "def main():\n"
        "    try:\n"
        "        printer.copy_out(b'x' * 100_000)\n"
        "    except StorageError as error:\n"
        "        printer.complain(error)\n"
        "        return error.exit_status\n"
        "raise SystemExit(entry.run_program(main))\n"
    )
    with Path("/dev/full").open("wb") as disk:
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment(), stdout=disk, stderr=subprocess.PIPE, check=False
        )
    wanted = b"error: standard output cannot be written (No space left on device): send it to another place.\n"
    assert (done.returncode, done.stderr) == (1, wanted)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_outputs_that_are_closed_from_the_start(closed: str, run_file: Path) -> None:
    shell = f'exec {closed}; exec "{sys.executable}" -m ftsys prepare "{run_file}"'
    done = subprocess.run(["bash", "-c", shell], env=environment(), timeout=SECONDS, check=False, capture_output=True)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]52;c;aGk=\x1b\\text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[H", ""),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x9b31mred", "red"),
        ("over\rwritten", "overwritten"),
        ("bell\x07 back\x08 null\x00", "bell back null"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\x1b", ""),
        ("a\tb\nc", "a\tb\nc"),
        ("Zürich 東京 🙂 e\u0301", "Zürich 東京 🙂 e\u0301"),
    ],
)
def test_control_characters_are_not_printed(text: str, printed: str) -> None:
    assert plain(text) == printed


def test_a_status_with_escapes_is_printed_without_them(tmp_path: Path) -> None:
    status = {"state": "failed", "exit": 1, "reason": "\x1b]0;owned\x07\x1b[2Jdisk", "phase": "train"}
    (tmp_path / "status.json").write_text(json.dumps({**status, "step": 3, "attempt": 1, "time": 0.0}))
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "status", str(tmp_path)], env=environment(), capture_output=True, check=True
    )
    assert done.stdout == b"run: failed, step 3, train, attempt 1: disk\n"


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_names_that_the_locale_cannot_spell(locale: str, tmp_path: Path) -> None:
    folder = tmp_path / "Zürich 東京"
    folder.mkdir()
    command = [sys.executable, "-m", "ftsys", "config", str(write_run_file(folder))]
    env = environment(LC_ALL=locale, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Z\\xfcrich" in done.stdout


def test_one_package_prints(repository: Path) -> None:
    """Only `ftsys/console` calls print; a script of a stock program that imports nothing of ftsys is left out."""
    elsewhere = [path for name in PROGRAMS for path in sorted((repository / name).rglob("*.py"))]
    allowed = {repository / "ftsys/bench/stock_start.py", *(repository / "ftsys/console").iterdir()}
    found = [
        f"{path.relative_to(repository)}:{node.lineno}"
        for path in elsewhere
        if path not in allowed
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []
