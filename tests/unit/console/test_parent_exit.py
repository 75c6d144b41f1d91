"""Tests that a process ends with its parent, also with one that ended before it could ask for that."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftsys.console.parent_exit import signalled_at_our_exit

WAIT = ["sleep", "60"]
ASK = """
import os, signal, sys, time
from ftsys.console.parent_exit import signal_at_parent_exit
signal_at_parent_exit(signal.SIGTERM, os.getppid() if sys.argv[1] == "there" else int(sys.argv[1]))
sys.exit(0)
"""
START = """
import signal, subprocess
from ftsys.console.parent_exit import signalled_at_our_exit
prepare = signalled_at_our_exit(signal.SIGKILL)
print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, preexec_fn=prepare).pid)
"""


@pytest.mark.parametrize(("parent", "status"), [("there", 0), ("999999999", -signal.SIGTERM)])
def test_a_parent_that_has_ended_already(parent: str, status: int) -> None:
    assert subprocess.run([sys.executable, "-c", ASK, parent], check=False).returncode == status


def test_a_child_ends_with_the_process_that_started_it() -> None:
    child = int(subprocess.run([sys.executable, "-c", START], capture_output=True, check=True).stdout)
    deadline = time.monotonic() + 30
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(process: int) -> bool:
    """Return False for a process that is gone, or that waits for its parent to notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_handler_of_the_parent_does_not_swallow_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between `fork` and `exec` the child still has it."""
    former = signal.signal(signal.SIGTERM, lambda number, frame: None)
    prepare = signalled_at_our_exit(signal.SIGTERM)
    monkeypatch.setattr(os, "getppid", lambda: 1)  # as if this process had ended
    try:
        with subprocess.Popen(WAIT, preexec_fn=prepare) as process:
            assert process.wait(30) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, former)
