"""Tests that a rank is told when its launcher is killed, and that no other parent's end matters."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftsys.train.fault_tolerance.signals import Interruption

RANK = """
import os, sys, time
from ftsys.train.fault_tolerance.signals import Interruption, stop_with_launcher
interruption = Interruption()
interruption.deferred = True
with interruption.watching():
    late = "LATE" in os.environ
    stop_with_launcher({} if late else os.environ)
    print("started", flush=True)
    sys.stdin.readline()  # until the parent ends: its standard input is the other end
    while os.getppid() == int(os.environ["LAUNCHER"]):
        time.sleep(0.01)
    if late:
        stop_with_launcher(os.environ)
    for _ in range(15 if interruption.received is None else 0):
        time.sleep(0.02)
        if interruption.received:
            break
    open(sys.argv[1], "w").write(str(interruption.received and interruption.received.name))
"""
LAUNCHER = """
import os, subprocess, sys
variables = {"LAUNCHER": str(os.getpid())} | ({"LATE": "1"} if sys.argv.pop(1) == "late" else {})
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
command = [sys.executable, "-c", *sys.argv[1:]]
rank = subprocess.Popen(command, **pipes, env=os.environ | variables, start_new_session=True)
rank.stdout.readline()
"""


@pytest.mark.parametrize(
    ("variables", "received"),
    [
        ({"TORCHELASTIC_RUN_ID": "none"}, "SIGTERM"),
        ({"CROSS_SIZE": "1"}, "SIGTERM"),
        ({"TORCHELASTIC_RUN_ID": "none", "FTSYS_OWN_LOG": "1"}, "None"),  # ftlaunch's wrapper does it
        ({}, "None"),  # a shell that started it in the background
    ],
)
@pytest.mark.parametrize("when", ["later", "late"])
def test_a_killed_launcher(
    tmp_path: Path, repository: Path, variables: dict[str, str], received: str, when: str
) -> None:
    """The rank asks before, or comes too `late`: then it has init as its parent."""
    said = tmp_path / "said"
    environment = {"PYTHONPATH": str(repository), "PATH": "", **variables}
    subprocess.run([sys.executable, "-c", LAUNCHER, when, RANK, str(said)], env=environment, check=True, timeout=60)
    for _ in range(500):
        if said.exists() and said.read_text():
            break
        time.sleep(0.02)
    assert said.read_text() == received


@pytest.mark.parametrize(("ranks", "met", "told"), [("2", False, True), ("2", True, False), ("1", False, False)])
def test_a_stop_before_the_ranks_have_met_may_be_another_ranks_death(
    monkeypatch: pytest.MonkeyPatch, ranks: str, met: bool, told: bool
) -> None:
    monkeypatch.setenv("WORLD_SIZE", ranks)
    interruption = Interruption()
    interruption.ranks_met |= met
    interruption.received = signal.SIGTERM
    assert ("another rank died in its start-up" in str(interruption.error())) == told
