"""A bundle made by `ftlaunch` trains where there is no network, no cache, no source and no model of that name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.commands import call, ftsys, read_json, write_run_file

# What Python reads before a program: every way out of the machine is refused and written down.
GUARD = """
import atexit, os, socket, sys

def refuse(what):
    with open(os.environ["GUARD_LOG"], "a") as log:
        log.write(f"{what}\\n")
    raise OSError(101, "this test has no network")

def guarded(connect):
    def checked(self, address):
        inside = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        return connect(self, address) if inside else refuse(address)
    return checked

def checked_name(host, *rest, _look_up=socket.getaddrinfo, **more):
    known = (None, "", "localhost", "127.0.0.1", socket.gethostname())
    return _look_up(host, *rest, **more) if host in known else refuse(host)

socket.socket.connect, socket.socket.connect_ex = guarded(socket.socket.connect), guarded(socket.socket.connect_ex)
socket.getaddrinfo = checked_name

@atexit.register
def say():
    hub = sys.modules.get("huggingface_hub.constants")
    with open(os.environ["GUARD_LOG"] + ".end", "w") as log:
        log.write(f"{getattr(hub, 'HF_HUB_OFFLINE', None)} {'torch' in sys.modules}")
"""

TASK = """
[task]
name = "mood"
columns = ["text"]
labels = ["down", "up"]
[data]
source = {train = "train.csv", validation = "train.csv"}
[batch]
global_size = 4
[train]
max_steps = 3
[engine]
precision = "fp32"
"""


@pytest.fixture
def no_network(tmp_path: Path) -> dict[str, str]:
    """An environment whose Python processes reach no network, with empty caches and the Hub switched on."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard/sitecustomize.py").write_text(GUARD)
    places = {name: str(tmp_path / name.lower()) for name in ("HF_HOME", "FTSYS_CACHE")}
    switches = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "0")
    return places | switches | {"PYTHONPATH": str(tmp_path / "guard"), "GUARD_LOG": str(tmp_path / "attempts")}


def without_network() -> list[str]:
    """A prefix that gives a process a network of its own with nothing in it, where this machine allows that."""
    words = ["unshare", "--map-root-user", "--net"]
    try:
        allowed = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return words if allowed else []


def test_the_guard_refuses(tmp_path: Path, no_network: dict[str, str]) -> None:
    ask = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    ended = call(sys.executable, "-c", ask, cwd=tmp_path, **no_network)
    assert "this test has no network" in ended.stderr
    assert (tmp_path / "attempts").read_text() == "192.0.2.1\n"


def test_a_bundle_trains_without_a_network(tmp_path: Path, minilm_folder: Path, no_network: dict[str, str]) -> None:
    login, node = tmp_path / "login", tmp_path / "node"
    login.mkdir()
    node.mkdir()
    (login / "model").symlink_to(minilm_folder)
    (login / "train.csv").write_text("text,label\n" + "a good day,up\na bad day,down\n" * 8)
    run_file = write_run_file(login, TASK + '[model]\nname = "model"\n')
    made = call(sys.executable, "-m", "launcher", "bundle", run_file, "--output", "bundle", cwd=login)
    assert (made.returncode, "bundle: made; 10 files" in made.stdout) == (0, True), made.stderr
    bundle = (login / "bundle").rename(node / "bundle")
    (login / "model").unlink()
    (login / "train.csv").unlink()

    train: list[str | Path] = [*without_network(), sys.executable, "-m", "ftsys", "train", bundle / "run.toml"]
    ended = call(*train, cwd=node, **no_network)
    assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "attempts").exists(), (tmp_path / "attempts").read_text()
    assert (tmp_path / "attempts.end").read_text() == "True True"
    made_here = {path.name for path in (tmp_path / "ftsys_cache").glob("*")}
    assert made_here <= {f"{name}-{os.getuid()}" for name in ("inductor", "native", "transformers-names")}
    results = read_json(login / "run/results.json")
    assert (results["steps"], results["model"]) == (3, "model")
    assert results["store"].startswith(str(bundle))

    # The run file that it was made from means the same run, which is finished now.
    again = ftsys("train", run_file, cwd=login)
    assert (again.returncode, "this run is finished" in again.stdout) == (0, True), again.stderr
