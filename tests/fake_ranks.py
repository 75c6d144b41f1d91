"""Runs `ftlaunch run` with doubles of torchrun and of the ranks' program; everything else is real.

A start takes half a second instead of ten, so many tests can kill, hang and interrupt ranks. The doubles come first on
PYTHONPATH: a package `torch` with a torchrun, and a `sitecustomize` that runs a test's text instead of
`python -m ftsys`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TORCHRUN = '''
"""Acts like torchrun: each rank has a session; the first failure interrupts the others; signals are forwarded."""
import os, signal, subprocess, sys, time
options = dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--") and "=" in word)
program = sys.argv[sys.argv.index("--module") + 1 :]
local, nodes, node = (int(options[name]) for name in ("nproc-per-node", "nnodes", "node-rank"))

class Told(Exception):
    pass

def told(number, frame):
    raise Told(number)

for name in options["signals-to-handle"].split(","):
    signal.signal(getattr(signal, name), told)
print("torchrun's own noise", file=sys.stderr, flush=True)
ranks = [
    subprocess.Popen(
        [sys.executable, "-u", "-m", *program],
        env=os.environ | {"RANK": str(node * local + each), "LOCAL_RANK": str(each), "WORLD_SIZE": str(nodes * local)},
        start_new_session=True,
    )
    for each in range(local)
]

def close(number, seconds):
    for rank in ranks:
        if rank.poll() is None:
            os.killpg(rank.pid, number)
    end = time.monotonic() + seconds
    while any(rank.poll() is None for rank in ranks) and time.monotonic() < end:
        time.sleep(0.02)
    for rank in ranks:
        if rank.poll() is None:
            os.killpg(rank.pid, signal.SIGKILL)

try:
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks):
            close(signal.SIGTERM, 30)
            break
        time.sleep(0.05)
except Told as signal_told:
    close(signal_told.args[0], int(options["shutdown-timeout"]))
sys.exit(int(any(rank.returncode for rank in ranks)))
'''

SITE = """
import sys
if "ftsys" in sys.orig_argv and "launcher.agent.rank" not in sys.orig_argv:
    import os, signal, time
    RANK, FOLDER = int(os.environ["RANK"]), os.environ["FTSYS_FAKE_FOLDER"]
    def sign(text):
        with open(f"{FOLDER}/sign-{RANK}", "a") as stream:
            stream.write(text + "\\n")
    try:
        exec(open(FOLDER + "/program.py").read())
    except SystemExit as left:
        sys.stdout.flush()
        os._exit(left.code or 0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)
"""

RUN_FILE = '[task]\nname = "paraphrase"\n[data]\nsource = "synthetic"\n[engine]\nprecision = "fp32"\n'


@dataclass
class Launch:
    """A running `ftlaunch run`."""

    folder: Path
    process: "subprocess.Popen[str]"
    inside: bool = False
    """True if `ftlaunch` is the only child of `process`."""

    def send(self, number: signal.Signals) -> None:
        """Send `ftlaunch` a signal."""
        pid = self.process.pid
        if self.inside:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        os.kill(pid, number)

    def signs(self, rank: int) -> list[str]:
        """Return the lines that the rank's program has signed so far."""
        path = self.folder / f"sign-{rank}"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, told: Callable[["Launch"], bool], seconds: float = 90.0) -> None:
        """Wait until `told` returns True."""
        deadline = time.monotonic() + seconds
        while not told(self):
            assert time.monotonic() < deadline, "nothing came"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def end(self, seconds: float = 120.0) -> tuple[int, str, str]:
        """Wait for the end; returns (exit status, standard output, standard error)."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


def doubles(folder: Path, program: str, torchrun: str = TORCHRUN) -> dict[str, str]:
    """Write the doubles and a run file into a folder; returns the environment that finds them."""
    fakes = folder / "fakes"
    (fakes / "torch/distributed").mkdir(parents=True, exist_ok=True)
    for name in ("torch/__init__.py", "torch/distributed/__init__.py"):
        (fakes / name).touch()
    (fakes / "torch/distributed/run.py").write_text(torchrun)
    (fakes / "sitecustomize.py").write_text(SITE)
    (folder / "program.py").write_text(program)
    (folder / "run.toml").write_text(f'output_dir = "{folder / "run"}"\n{RUN_FILE}')
    return {"PYTHONPATH": f"{fakes}:{Path(__file__).parents[1]}", "FTSYS_FAKE_FOLDER": str(folder)}


def launch(
    folder: Path,
    program: str,
    *words: str,
    torchrun: str = TORCHRUN,
    terminal: int | None = None,
    before: Sequence[str] = (),
    ranks_per_node: int = 2,
) -> Launch:
    """Start `ftlaunch run` with ranks that run `program`, Python code that can use RANK and sign(TEXT).

    Standard output and error are captured, or go to the open file `terminal`. `before`: a prefix of the command that
    starts it elsewhere.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    command = [sys.executable, "-m", "launcher", "run", "run.toml", "--cpu"]
    process = subprocess.Popen(
        [*before, *command, "--gpus-per-node", str(ranks_per_node), *words],
        cwd=folder,
        env=environment | doubles(folder, program, torchrun),
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.PIPE if terminal is None else terminal,
        text=True,
    )
    return Launch(folder, process, inside=bool(before))


def processes_of(folder: Path) -> list[int]:
    """Return every process of this folder's launches: they have the folder in their environment."""
    mark, found = f"FTSYS_FAKE_FOLDER={folder}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
