"""Watches the ports of a whole run on one machine: other machines reach at most the store of torchrun itself."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ftsys.ranks import is_loopback
from tests.end_to_end.commands import RUN_FILE, environment, write_run_file

SECONDS = 400


def opened(process: psutil.Process) -> set[tuple[str, str]]:
    """The module of each process below this one, with the addresses at which it listens."""
    found = set()
    for each in process.children(recursive=True):
        with suppress(psutil.Error):
            words, ports = each.cmdline(), each.net_connections(kind="tcp")
            module = words[words.index("-m") + 1] if "-m" in words else ""
            found |= {(module, port.laddr.ip) for port in ports if port.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.parametrize(("launcher", "reached"), [("deepspeed", set()), ("torchrun", {"torch.distributed.run"})])
def test_a_run_of_two_ranks(tmp_path: Path, tiny_model: Path, launcher: str, reached: set[str]) -> None:
    write_run_file(tmp_path, RUN_FILE, model=tiny_model)
    words = ["run", "run.toml", "--gpus-per-node", "2", "--cpu", "--launcher", launcher]
    command = [sys.executable, "-m", "launcher", *words]
    found: set[tuple[str, str]] = set()
    deadline = time.monotonic() + SECONDS
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as started:
        while started.poll() is None and time.monotonic() < deadline:
            found |= opened(psutil.Process(started.pid))
            time.sleep(0.2)
        started.kill()
        assert started.returncode == 0, started.communicate()
    assert ("ftsys", "127.0.0.1") in found, "gloo and the heartbeats of the ranks"
    assert {module for module, address in found if not is_loopback(address)} == reached
