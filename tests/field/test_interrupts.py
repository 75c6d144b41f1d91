"""Tests Ctrl-C: in every command, during imports and at work, it gives one line and exit status 130."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.commands import SECONDS, environment, ftsys, write_run_file

LINE = "error: interrupted by Ctrl-C. No file is half-written: start the same command again."

SITE = """
import os, signal, sys, threading

class _At:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["FIELD_INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            open(os.environ["FIELD_INTERRUPTED"], "w").close()
            os.kill(os.getpid(), signal.SIGINT)

if "FIELD_INTERRUPT_AT" in os.environ:
    sys.meta_path.insert(0, _At())
"""
PRESSED = "pressed"
"""A sitecustomize that presses Ctrl-C when a module is imported, so that no test waits for the right moment."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run file, a finished run of it, and the sitecustomize."""
    folder = tmp_path_factory.mktemp("interrupts")
    (folder / "sitecustomize.py").write_text(SITE)
    done = ftsys("train", write_run_file(folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def interrupted(folder: Path, at: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m WORDS` in `folder`, with Ctrl-C at the import of the module `at`."""
    here = f"{folder}:{Path(__file__).parents[2]}"
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment(FIELD_INTERRUPT_AT=at, FIELD_INTERRUPTED=str(folder / PRESSED), PYTHONPATH=here),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


CASES = [
    ("ftsys.config", "ftsys config run.toml"),
    ("pydantic", "ftsys train run.toml"),
    ("ftsys.train.run", "ftsys train run.toml"),
    ("numpy", "ftsys train run.toml"),
    ("torch", "ftsys predict run.toml"),
    ("transformers", "ftsys predict run.toml"),
    ("ftsys.train.setup", "ftsys evaluate run.toml"),
    ("ftsys.train.trainer.trainer", "ftsys evaluate run.toml"),
    ("pyarrow", "ftsys prepare run.toml --data.max_length 77"),
    ("tokenizers", "ftsys prepare run.toml --data.max_length 77"),
    ("ftsys.offline.make_bundle", "ftsys bundle run.toml --output out"),
    ("ftsys.train.verify", "ftsys verify run"),
    ("ftsys.html_report.command", "ftsys report run"),
    ("ftsys.demo.command", "ftsys demo"),
    ("ftsys.run_glue.flags", "ftsys run-glue --help"),
    ("transformers", "ftsys run-glue --help"),
    ("ftsys.bench.step", "ftsys bench step --quick"),
    ("ftsys.offline.command", "ftsys offline-assets --glue-dir ."),
    ("launcher.planner.plan", "launcher plan run.toml"),
    ("launcher.commands.config", "launcher config run.toml"),
    ("launcher.commands.run", "launcher run run.toml"),
    ("launcher.commands.sbatch", "launcher sbatch run.toml --cpu --dry-run"),
    ("launcher.commands.status", "launcher status run"),
    ("launcher.commands.logs", "launcher logs run"),
    ("launcher.commands.cancel", "launcher cancel run"),
    ("launcher.doctor.checks", "launcher doctor run.toml"),
    ("launcher.commands.bundle", "launcher bundle run.toml --output out"),
]


@pytest.mark.parametrize(("at", "command"), CASES, ids=[f"{command} at {at}" for at, command in CASES])
def test_ctrl_c_during_an_import(at: str, command: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = interrupted(folder, at, *command.split())
    assert (folder / PRESSED).exists(), f"{command} no longer imports {at}: name another module in CASES"
    (folder / PRESSED).unlink()
    assert (done.returncode, done.stderr.splitlines()) == (130, [LINE])
    assert [path for path in sorted(folder.rglob("*")) if path not in before and "__pycache__" not in path.parts] == []


def at_work(*words: str, cwd: Path, ready: Callable[[str], bool]) -> tuple[int, str]:
    """Start a command in its own process group, press Ctrl-C when its output is `ready`; returns status and output."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stderr is not None
    said = ""
    while not ready(said):
        line = process.stderr.readline()
        assert line, said
        said += line
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read()
    return process.wait(SECONDS), said + rest


def own_data(folder: Path, rows: int) -> str:
    text = "label,sentence1,sentence2\n" + "".join(f"{i % 2},a first text {i},a second text {i}\n" for i in range(rows))
    (folder / "rows.csv").write_text(text)
    source = '{train = "rows.csv", validation = "rows.csv"}'
    (folder / "own.toml").write_text(
        f'output_dir = "own"\n[task]\nname = "own"\ncolumns = ["sentence1", "sentence2"]\nlabels = ["0", "1"]\n'
        f'metrics = ["accuracy"]\n[data]\nsource = {source}\nstore = "stores"\n[model]\nname = "bundled"\n'
    )
    return "own.toml"


def test_ctrl_c_while_a_store_is_made_leaves_none(tmp_path: Path) -> None:
    run_file = own_data(tmp_path, 200_000)
    status, said = at_work("ftsys", "prepare", run_file, cwd=tmp_path, ready=lambda said: "rows" in said)
    assert (status, said.splitlines()[-1]) == (130, LINE)
    assert "Traceback" not in said
    assert [path for path in (tmp_path / "stores").rglob("*") if path.is_file()] == []


def test_ctrl_c_while_predicting_leaves_whole_files(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "run/predictions").iterdir()}
    status, said = at_work("ftsys", "predict", "run.toml", cwd=folder, ready=lambda said: "predict" in said)
    # Triton, which a CUDA build of torch brings, may print a page about its own leaks after it.
    assert (status, said.partition("nanobind:")[0].splitlines()[-1]) == (130, LINE)
    assert "Traceback" not in said
    assert {path: path.read_bytes() for path in (folder / "run/predictions").iterdir()} == before


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time; from ftsys.console.entry import run_program\n"
        "def main():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaning', flush=True); time.sleep(60)\n"
        "sys.exit(run_program(main))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    while process.stdout.readline() != "cleaning\n":  # a line that was just written may come twice
        assert process.poll() is None
    process.send_signal(signal.SIGINT)  # that of the same Ctrl-C, from a launcher
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130
