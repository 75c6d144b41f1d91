"""Starts the installed programs in a folder that holds modules with the names of others: none of them may be run.

A console script does not look for modules in the current folder, but each Python that it starts would.
"""

import getpass
import os
import sys
from pathlib import Path

import pytest

from ftsys.console.child_python import python_command
from ftsys.demo import command as demo
from ftsys.ranks import free_port
from tests.end_to_end.commands import PYTHON, RUN_FILE, call, environment, ftsys, write_run_file
from tests.fake_ranks import doubles

NAMES = ("torch", "ctypes", "json", "socket", "tomllib", "deepspeed", "numpy", "ftsys", "launcher")
PLANTED = (
    "import os\nwith open(os.environ['PLANTED'], 'a') as stream:\n    stream.write(__file__)\nraise SystemExit(66)\n"
)
PROGRAM = "import ctypes, ftsys, launcher\nfor one in (ctypes, ftsys, launcher):\n    sign(one.__file__)\n"


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder with planted modules; a file `was-run` beside it names those that were run."""
    folder = tmp_path / "downloaded-model"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(PLANTED)
    return folder


def told(folder: Path) -> dict[str, str]:
    """Variables of a start in the folder, whose programs are this checkout's."""
    return {"PLANTED": str(folder.parent / "was-run"), "PYTHONPATH": str(Path(__file__).parents[2])}


def was_run(folder: Path) -> str:
    path = folder.parent / "was-run"
    return path.read_text() if path.exists() else ""


def test_they_would_be_run(planted: Path) -> None:
    """Shows that they are live: it is Python's own rule for a command that somebody types."""
    assert call(sys.executable, "-c", "import torch", cwd=planted, **told(planted)).returncode == 66
    assert was_run(planted) == f"{planted}/torch.py"


def test_a_file_in_the_place_of_torchs_folder_stops_no_command(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp anybody can make one, under any user's name; torch makes the folder while transformers is imported."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch sets it in every process that imports it
    folder = tmp_path / "tmp"
    folder.mkdir()
    (folder / f"torchinductor_{getpass.getuser()}").touch()
    write_run_file(tmp_path, model=tiny_model)
    ended = ftsys("train", "run.toml", "--train.max_steps", "1", cwd=tmp_path, TMPDIR=str(folder), **told(folder))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_ftlaunch_run(planted: Path, launcher: str) -> None:
    """The agent, torchrun or deepspeed's launcher, the wrapper of a rank, and the rank."""
    variables = told(planted) | doubles(planted.parent, PROGRAM)
    fakes = planted.parent / "fakes"
    (fakes / "deepspeed/launcher").mkdir(parents=True)
    for name in ("deepspeed/__init__.py", "deepspeed/launcher/__init__.py"):
        (fakes / name).touch()
    (fakes / "deepspeed/launcher/launch.py").write_text(LAUNCH)
    words: list[str | Path] = [
        "run",
        planted.parent / "run.toml",
        "--cpu",
        "--gpus-per-node",
        "1",
        "--launcher",
        launcher,
    ]
    done = call(f"{PYTHON}/ftlaunch", *words, cwd=planted, **variables)
    assert (done.returncode, was_run(planted)) == (0, ""), done.stderr
    signed = (planted.parent / "sign-0").read_text().split()
    assert len(signed) == 3
    assert [name for name in signed if name.startswith(str(planted))] == []


LAUNCH = """
import os, subprocess, sys
program = sys.argv[sys.argv.index("--module") + 1 :]
world = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
sys.exit(subprocess.run([sys.executable, "-u", "-m", *program], env=os.environ | world).returncode)
"""
"""Acts like deepspeed's launcher with one rank."""


def test_ftlaunch_run_on_a_checkout_in_the_current_folder(tmp_path: Path, repository: Path) -> None:
    """`python -m launcher` finds the checkout there, and so does every process below it."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("ftsys", "launcher"):
        (checkout / name).symlink_to(repository / name)
    variables = doubles(tmp_path, PROGRAM) | {"PYTHONPATH": str(tmp_path / "fakes")}
    words: list[str | Path] = ["run", tmp_path / "run.toml", "--cpu", "--gpus-per-node", "1"]
    done = call(sys.executable, "-m", "launcher", *words, cwd=checkout, **variables)
    assert done.returncode == 0, done.stderr
    signed = (tmp_path / "sign-0").read_text().split()
    assert signed[1:] == [f"{checkout}/{name}/__init__.py" for name in ("ftsys", "launcher")]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("ftlaunch", ("doctor", "{run}", "--cpu", "--gpus-per-node", "1")),
        ("ftlaunch", ("bundle", "{run}", "--output", "{beside}/bundle")),
        ("ftsys", ("sweep", "{run}", "--space", "train.seed=1,2", "--trials", "1", "--output", "{beside}/sweep")),
    ],
)
def test_a_command_that_starts_another_python(
    planted: Path, tiny_model: Path, program: str, words: tuple[str, ...]
) -> None:
    run = write_run_file(planted.parent, SHORT, model=tiny_model)
    named = [word.format(run=run, beside=planted.parent) for word in words]
    done = call(f"{PYTHON}/{program}", *named, cwd=planted, **told(planted))
    assert (done.returncode, was_run(planted)) == (0, ""), done.stdout + done.stderr


SHORT = RUN_FILE.replace("max_steps = 5", "max_steps = 1")


def test_the_ranks_of_the_demo(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """deepspeed's real launcher, with a program in place of `ftsys`."""
    monkeypatch.chdir(planted)
    program = planted.parent / "program"
    program.mkdir()
    (program / "ftsys.py").write_text("import json, sys\nopen(sys.argv[1], 'w').write(json.__file__)\n")
    cpu = demo.Devices((), cores=2)
    seen = planted.parent / "seen"
    variables = environment(PLANTED=told(planted)["PLANTED"], PYTHONPATH=str(program))
    assert (
        demo.run_ranks(demo.launch_command(cpu, free_port(), [str(seen)]), demo.rank_environment(cpu, variables)) == 0
    )
    assert (Path(seen.read_text()).parents[1], was_run(planted)) == (Path(os.__file__).parent, "")


def test_a_users_own_script_finds_its_neighbours(tmp_path: Path) -> None:
    """`ftsys sweep --command "python my.py"`: only the Python of ftsys itself leaves the script's folder out."""
    (tmp_path / "my.py").write_text("import neighbour\n")
    (tmp_path / "neighbour.py").write_text("print('found')\n")
    child = python_command("-m", "ftsys.sweep.child", str(os.getpid()), sys.executable, "my.py")
    assert call(*child, cwd=tmp_path).stdout == "found\n"
