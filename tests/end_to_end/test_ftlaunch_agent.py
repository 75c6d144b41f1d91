"""The agent of a node alone, given its orders by hand: what it does when nobody gives it any more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.command_lines import Start
from launcher.protocol import Message, Words, order
from tests.fake_ranks import doubles, processes_of


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
        self._words, self._heard = Words(), list[Message]()

    def tell(self, **fields: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order(**fields))

    def prepare(self, **other: object) -> None:
        fields = {"node": 0, "environment": {}, "cpu": True, "ranks": 1, "files": [], "port": None, "job": "a"}
        self.tell(do="prepare", **{**fields, "silence": None, **other})

    def start(self) -> None:
        start = Start("torchrun", 1, 1, "127.0.0.1", 1, "id", ("train", "run.toml"), str(self.folder / "run/logs"))
        self.tell(do="start", start=start.as_fields(), peers=["here"])

    def hear(self, kind: str) -> Message:
        """The next word of a kind."""
        assert self.process.stderr is not None
        while True:
            for word in self._heard:
                if word["kind"] == kind:
                    self._heard.remove(word)
                    return word
            piece = os.read(self.process.stderr.fileno(), 1 << 16)
            assert piece, f"the agent ended without {kind!r}"
            self._heard += [part for part in self._words.feed(piece) if not isinstance(part, bytes)]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path, "sign('here')\ntime.sleep(1000)\n")
    yield agent
    agent.process.kill()
    agent.process.communicate()


def test_orders_and_words(agent: Agent) -> None:
    agent.prepare()
    ready = agent.hear("ready")
    assert (ready["node"], ready["gpus"]) == (0, [])
    assert 10_000 <= ready["port"] <= 65_535
    agent.start()
    agent.tell(do="leave", now=True)
    assert agent.hear("gone")["reason"] == ""
    assert agent.process.wait(10) == 0


def test_an_agent_that_hears_nothing_stops_its_ranks(agent: Agent, tmp_path: Path) -> None:
    agent.prepare(silence=2.0)
    agent.start()
    assert agent.hear("ended")["status"] == -15
    assert agent.hear("gone")["ranks"] == 1
    assert agent.process.wait(10) == 0
    assert processes_of(tmp_path) == []


def test_an_agent_that_is_killed_takes_its_ranks_along(agent: Agent, tmp_path: Path) -> None:
    agent.prepare()
    agent.start()
    while not (tmp_path / "sign-0").exists():
        assert agent.process.poll() is None
    agent.process.kill()
    agent.process.wait()
    while processes_of(tmp_path):
        pass


def test_a_log_that_cannot_be_written(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    agent.prepare()
    agent.start()
    assert "torchrun could not be started: [Errno" in agent.hear("gone")["reason"]
    assert agent.process.wait(10) == 0


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"files": ["no-such-file"]}, "'no-such-file' is not there on "),
        ({"port": 70_000}, "--port 70000 is no port"),
    ],
)
def test_a_machine_that_cannot_be_used(agent: Agent, order: Message, reason: str) -> None:
    agent.prepare(**order)
    assert agent.hear("refused")["reason"].startswith(reason)


def test_more_ranks_than_gpus(tmp_path: Path) -> None:
    from ftsys.errors import LaunchError
    from launcher.host.preflight import check_machine

    with pytest.raises(LaunchError, match=r"4 ranks were asked for on .*: write --gpus-per-node, or --cpu"):
        check_machine({"files": [], "ranks": 4}, gpus=2)
    check_machine({"files": [], "ranks": None}, gpus=2)
    check_machine({"files": [], "ranks": 4}, gpus=0)
