"""Tests the controller with connections that only record orders: preflight, failures, signals."""

import queue
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from ftsys.errors import LaunchError
from launcher import controller as module
from launcher.backends.agents import AgentConnection, Event
from launcher.controller import Controller
from launcher.exit_report import RankExit


class Recorded(AgentConnection):
    """A connection without a process. `orders`: what was sent."""

    def __init__(self, place: str, nodes: tuple[int, ...], events: "queue.Queue[Event]", command: str = "ssh") -> None:
        super().__init__(place, nodes, [command], events)
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.process = SimpleNamespace(returncode=255)  # type: ignore[assignment]  # only its status is read

    def send(self, kind: str, **fields: object) -> None:
        self.orders.append((kind, fields))

    def report(self, kind: str, node: int, **fields: object) -> None:
        self.events.put(Event(self, {"kind": kind, "node": node, "host": f"host{node}", **fields}))

    def lose(self, errors: str = "") -> None:
        self.errors = errors.encode()
        self.events.put(Event(self, None))


class Cluster:
    """Two hosts behind ssh, or one srun of two nodes."""

    def __init__(self, one_srun: bool = False) -> None:
        events: queue.Queue[Event] = queue.Queue()
        self.connections = (
            [Recorded("srun on 2 nodes", (0, 1), events, "srun")]
            if one_srun
            else [Recorded(f"host{node}", (node,), events) for node in (0, 1)]
        )
        self.controller = Controller(self.connections, events)

    def kinds(self, number: int = 0) -> list[str]:
        return [kind for kind, _ in self.connections[number].orders]


def test_each_agent_is_asked_and_its_answer_kept() -> None:
    cluster = Cluster()
    for node, connection in enumerate(cluster.connections):
        connection.report("ready", node, port=17)
    assert sorted(cluster.controller.preflight(cpu=True)) == [0, 1]
    assert cluster.connections[1].orders == [("preflight", {"node": 1, "cpu": True})]
    one = Cluster(one_srun=True)
    for node in (0, 1):
        one.connections[0].report("ready", node)
    one.controller.preflight()
    assert one.connections[0].orders == [("preflight", {"node": None})], "under srun each agent knows its own number"


def test_every_reason_is_reported_once() -> None:
    cluster = Cluster()
    cluster.connections[0].report("refused", 0, reason="no such file.")
    cluster.connections[1].lose("ssh: Could not resolve hostname host1\n")
    with pytest.raises(LaunchError) as raised:
        cluster.controller.preflight()
    first, second = str(raised.value).splitlines()
    assert first == "no such file."
    assert second.startswith(
        "host 'host1' cannot be reached over ssh: ssh: Could not resolve hostname host1. `ssh host1"
    )


def test_the_reason_of_a_node_outlives_its_connection() -> None:
    cluster = Cluster(one_srun=True)
    cluster.connections[0].report("refused", 0, reason="no such file.")
    cluster.connections[0].lose("srun: error: node2: task 1 failed")
    with pytest.raises(LaunchError) as raised:
        cluster.controller.preflight()
    assert [line[:12] for line in str(raised.value).splitlines()] == ["no such file", "'srun on 2 n"]


def test_agents_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFLIGHT_SECONDS", 0.01)
    cluster = Cluster()
    cluster.connections[0].report("ready", 0)
    with pytest.raises(LaunchError, match=r"^no answer from host1 within 0\.01 s\.$"):
        cluster.controller.preflight()


def test_a_failed_rank_has_all_nodes_leave_once() -> None:
    cluster = Cluster()
    for rank in (1, 3):
        cluster.connections[1].report("rank_exit", 1, rank=rank, status=1)
    for node, connection in enumerate(cluster.connections):
        connection.report("agent_exit", node, status=1, ranks=2, reason="")
    cluster.controller.wait()
    assert cluster.controller.rank_exits == [RankExit(1, 1, "host1"), RankExit(3, 1, "host1")]
    assert cluster.connections[0].orders == [("leave", {"now": False})]
    assert cluster.controller.start_failure == ""


def test_a_lost_connection_is_the_reason_and_gets_no_orders() -> None:
    cluster = Cluster()
    cluster.connections[1].lose()
    cluster.connections[0].report("agent_exit", 0, status=1, ranks=1, reason="")
    cluster.controller.wait()
    assert cluster.controller.start_failure == "the connection to host1 was lost: it wrote no error message"
    assert (cluster.kinds(0), cluster.kinds(1)) == (["leave"], [])


def test_a_launcher_that_starts_no_rank_is_a_failure() -> None:
    cluster = Cluster()
    cluster.connections[0].report("agent_exit", 0, status=1, ranks=0, reason="torchrun could not be started")
    cluster.connections[1].report("agent_exit", 1, status=0, ranks=1, reason="")
    cluster.controller.wait()
    assert cluster.controller.start_failure == "no rank was started on host0: torchrun could not be started"


def test_a_rank_that_stays_after_another_is_done_must_leave(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LAST_RANKS_SECONDS", 0.01)
    monkeypatch.setattr(module, "CONTROLLER_GIVE_UP_SECONDS", 0.01)
    cluster = Cluster()
    cluster.connections[0].report("rank_exit", 0, rank=0, status=0)
    cluster.controller.wait()
    assert cluster.kinds(1) == ["leave"]
    assert "only rank 0 ended, the first 0.01 s ago" in capsys.readouterr().err


def test_agents_are_given_up_some_time_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONTROLLER_GIVE_UP_SECONDS", 0.01)
    cluster = Cluster()
    cluster.connections[0].report("rank_exit", 0, rank=0, status=-9)
    cluster.controller.wait()
    assert cluster.kinds(1) == ["leave"]


def test_ranks_get_the_first_signal_and_a_second_interrupt_kills_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "SECOND_INTERRUPT_SECONDS", -1.0)
    monkeypatch.setattr(module, "CONTROLLER_KILL_SECONDS", 0.0)
    cluster = Cluster()
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        cluster.controller._on_signal(number, None)
    cluster.controller.wait()
    assert cluster.controller.stop_signal == signal.SIGHUP
    assert cluster.connections[0].orders == [("signal", {"name": "SIGTERM"}), ("leave", {"now": True})]
    assert "second Ctrl-C" in capsys.readouterr().err


def test_an_interrupt_that_comes_twice_is_one() -> None:
    cluster = Cluster()
    for _ in range(2):
        cluster.controller._on_signal(signal.SIGINT, None)
    for node, connection in enumerate(cluster.connections):
        connection.report("agent_exit", node, status=1, ranks=1, reason="")
    cluster.controller.wait()
    assert cluster.kinds() == ["signal"]


def test_heartbeats_are_sent_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.0)
    cluster = Cluster()
    for node, connection in enumerate(cluster.connections):
        connection.report("agent_exit", node, status=0, ranks=1, reason="")
    cluster.controller.wait()
    assert set(cluster.kinds()) == {"heartbeat"}
