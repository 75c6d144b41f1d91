"""Starting the real commands the way a user does, and reading what they leave."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fork_server import be_ftsys, fork_server
from tests.ports import unused_port

SECONDS = 400
PYTHON = str(Path(sys.executable).parent)

RUN_FILE = """
[task]
name = "paraphrase"
[data]
source = "synthetic"
[model]
name = "bundled"
[batch]
global_size = 16
[train]
max_steps = 5
eval_every = 5
save_every = 5
[engine]
precision = "fp32"
[trainer]
logging_steps = 1
"""


def environment(**more: str) -> dict[str, str]:
    """The user's environment, with this interpreter's programs first and two quiet CPU ranks."""
    return os.environ | {
        "PATH": f"{PYTHON}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **more,
    }


def call(*words: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; standard output and error are captured apart."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment(**more),
        text=True,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


def ftsys(*words: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """`ftsys WORDS` in one process, which is forked from one that has imported everything.

    With variables in `more` it is a new interpreter, because libraries read variables while they are imported.
    """
    if more:
        return call(sys.executable, "-m", "ftsys", *words, cwd=cwd, **more)
    given = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [Path(scratch, name) for name in ("stdout", "stderr")]
        process = fork_server().Process(target=be_ftsys, args=(given, cwd, environment(), outputs))
        process.start()
        process.join(SECONDS)
        process.kill()  # nothing if it has ended
        process.join()
        assert process.exitcode is not None
        out, err = (path.read_text() if path.exists() else "" for path in outputs)
    return subprocess.CompletedProcess(["ftsys", *given], process.exitcode, out, err)


def write_run_file(folder: Path, text: str = RUN_FILE, model: str | Path = "bundled") -> Path:
    """Write run.toml on another model than the bundled one where one is named, and return its path."""
    path = folder / "run.toml"
    text = text.replace('name = "bundled"', f'name = "{model}"')
    path.write_text(f'output_dir = "{folder / "run"}"\n{text}')
    return path


def free_port() -> str:
    return str(unused_port())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def losses(run_folder: Path) -> list[float]:
    """Training losses in the order of steps."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "split" not in line]


def ranks_of(folder: Path) -> dict[int, int]:
    """Rank -> the process that trains, for the ranks that run in a folder."""
    found: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, environ = ((path / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            inside = (path / "cwd").readlink() == folder
        except OSError:
            continue
        if inside and b"\0-m\0ftsys\0train\0" in b"\0".join(words):
            found |= {int(each[5:]): int(path.name) for each in environ if each.startswith(b"RANK=")}
    return found
