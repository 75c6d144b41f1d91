"""Tests the agent of a node alone, with orders from the test, also when orders stop coming."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.command_lines import LaunchSpec
from launcher.protocol import Message, ReportReader, encode_order
from tests.fake_ranks import doubles, processes_of

SECONDS = 60


class Agent:
    """`python -m launcher.agent` with pipes to it."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "launcher.agent"],
            cwd=folder,
            env=os.environ | doubles(folder, program),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._reports, self._heard = ReportReader(), list[Message]()

    def tell(self, kind: str, **fields: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(encode_order(kind, **fields))

    def preflight(self, **other: object) -> None:
        fields = {"node": 0, "environment": {}, "cpu": True, "ranks": 1, "files": [], "port": None, "job": "a"}
        self.tell("preflight", **{**fields, "silence": None, **other})

    def start(self) -> None:
        launch = LaunchSpec(
            "torchrun", 1, 1, "127.0.0.1", 1, "id", ("train", "run.toml"), str(self.folder / "run/logs")
        )
        self.tell("start", launch=launch.as_fields(), hosts=["here"])

    def hear(self, kind: str) -> Message:
        """The next report of a kind."""
        assert self.process.stderr is not None
        while True:
            for report in self._heard:
                if report["kind"] == kind:
                    self._heard.remove(report)
                    return report
            piece = os.read(self.process.stderr.fileno(), 1 << 16)
            assert piece, f"the agent ended without {kind!r}"
            self._heard += [part for part in self._reports.feed(piece) if not isinstance(part, bytes)]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path, "sign('here')\ntime.sleep(1000)\n")
    yield agent
    agent.process.kill()
    agent.process.communicate()


def test_orders_and_reports(agent: Agent) -> None:
    agent.preflight()
    ready = agent.hear("ready")
    assert (ready["node"], ready["gpus"]) == (0, [])
    assert 10_000 <= ready["port"] <= 65_535
    agent.start()
    agent.tell("leave", now=True)
    assert agent.hear("agent_exit")["reason"] == ""
    assert agent.process.wait(SECONDS) == 0


def test_an_agent_that_hears_nothing_stops_its_ranks(agent: Agent, tmp_path: Path) -> None:
    agent.preflight(silence=2.0)
    agent.start()
    while not (tmp_path / "sign-0").exists():
        agent.tell("heartbeat")
        time.sleep(0.1)
    assert agent.hear("rank_exit")["status"] == -15
    assert agent.hear("agent_exit")["ranks"] == 1
    assert agent.process.wait(SECONDS) == 0
    assert processes_of(tmp_path) == []


def test_an_agent_that_is_killed_takes_its_ranks_along(agent: Agent, tmp_path: Path) -> None:
    agent.preflight()
    agent.start()
    while not (tmp_path / "sign-0").exists():
        assert agent.process.poll() is None
        time.sleep(0.02)
    agent.process.kill()
    agent.process.wait()
    while processes_of(tmp_path):
        time.sleep(0.05)


def test_a_log_that_cannot_be_written(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    agent.preflight()
    agent.start()
    assert "torchrun could not be started: [Errno" in agent.hear("agent_exit")["reason"]
    assert agent.process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"files": ["no-such-file"]}, "'no-such-file' is not there on "),
        ({"port": 70_000}, "--port 70000 is not a port"),
    ],
)
def test_a_machine_that_cannot_be_used(agent: Agent, order: Message, reason: str) -> None:
    agent.preflight(**order)
    assert agent.hear("refused")["reason"].startswith(reason)
