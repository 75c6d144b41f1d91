"""Tests the process around a rank where its agent or torchrun has ended before it is told what to do."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.agent import rank
from launcher.protocol import AGENT_SOCKET

NAME = f"test-rank-{os.getpid()}"
LAUNCHER_THAT_ENDS = """
import os, sys, time
if os.fork() == 0:
    while os.getppid() != int(sys.argv[1]):
        time.sleep(0.01)
    os.execv(sys.executable, [sys.executable, "-m", "launcher.agent.rank", "train", "none.toml"])
"""
AGENT = """
import os, socket, subprocess, sys
from launcher.agent.process_tree import adopt_orphans
adopt_orphans()
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind("\\0" + sys.argv[1])
listener.listen()
subprocess.run([sys.executable, "-c", sys.argv[2], str(os.getpid())], check=True)
said = listener.accept()[0].recv(1000)
print(said, os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_wrapper_that_torchrun_left_behind_starts_no_rank(repository: Path) -> None:
    world = {AGENT_SOCKET: NAME, "RANK": "0", "LOCAL_RANK": "0", "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", AGENT, NAME, LAUNCHER_THAT_ENDS]
    done = subprocess.run(command, env=os.environ | world, text=True, capture_output=True, check=True, timeout=60)
    assert done.stdout.split() == ["b''", str(128 + signal.SIGTERM)], done.stderr


def test_no_orders_are_taken_from_another_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(AGENT_SOCKET, f"{NAME}-other")
    monkeypatch.setattr(rank, "signal_at_parent_exit", lambda *_: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{NAME}-other")
        listener.listen()
        user = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
        assert rank.main(["train", "none.toml"]) == 1
        assert listener.accept()[0].recv(1000) == b""
    assert f"the agent's socket belongs to user {user}" in "".join(capsys.readouterr())
