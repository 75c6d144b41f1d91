"""Tests `ftlaunch run --hostfile` between real hosts, over real ssh."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.hosts import Network, wait_for
from tests.fake_ranks import Launch, launch, processes_of

pytestmark = pytest.mark.cluster

SIGNED = "sign(os.uname().nodename)\n"
FOREVER = SIGNED + "time.sleep(1000)\n"
SAVES = f"""
got = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: got.append(number))
{SIGNED}
while not got:
    time.sleep(0.01)
sign(signal.Signals(got[0]).name)
sys.exit(75)
"""


@pytest.fixture
def start(network: Network, tmp_path: Path) -> Callable[..., Launch]:
    """`start(program, *words)`: one rank on node1 and one on node2, started from node1."""
    (tmp_path / "hosts").write_text("node1 slots=1\nnode2 slots=1\n")

    def started(program: str, *words: str, hosts: str = "hosts") -> Launch:
        before = network.inside("node1", tmp_path)
        return launch(tmp_path, program, "--hostfile", hosts, *words, before=before, ranks_per_node=1)

    return started


def both_signed(launched: Launch) -> bool:
    return all(launched.signs(rank) for rank in (0, 1))


def pids(folder: Path, rank: int) -> list[int]:
    """Return the rank's own processes, by this machine's process ids."""
    found = []
    for pid in processes_of(folder):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"ftsys" in words and b"launcher.agent.rank" not in words and f"RANK={rank}".encode() in environment:
            found.append(pid)
    return found


def test_a_good_end_on_two_hosts(start: Callable[..., Launch], tmp_path: Path) -> None:
    launched = start(SIGNED + "print('result of', RANK)\nprint('note of', RANK, file=sys.stderr)\n")
    status, out, err = launched.end()
    assert (status, out) == (0, "result of 0\n"), err
    announced, note = err.splitlines()
    assert announced.startswith("ftlaunch: hostfile (--hostfile hosts): torchrun starts 2 CPU ranks on node1, node2, ")
    assert note == "note of 0"
    assert [launched.signs(rank) for rank in (0, 1)] == [["node1"], ["node2"]]
    assert sorted(path.name for path in (tmp_path / "run/logs").iterdir()) == [
        *("node-0.log", "node-1.log", "rank-0.log", "rank-1.log")
    ]
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (
            "node1 slots=1\nnode3 slots=1\n",
            "host 'node3' cannot be reached over ssh: ssh: connect to host node3 port 22: Conn",
        ),
        (
            "node1 slots=1\nnowhere slots=1\n",
            "host 'nowhere' cannot be reached over ssh: ssh: Could not resolve hostname no",
        ),
    ],
)
def test_a_host_that_is_not_reached(start: Callable[..., Launch], tmp_path: Path, hosts: str, said: str) -> None:
    (tmp_path / "others").write_text(hosts)
    status, _, err = start(SIGNED, hosts="others").end()
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: {said}")
    assert "must work without a password" in line
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "sign-0").exists()
    assert processes_of(tmp_path) == []


def test_a_port_that_is_in_use_on_the_first_host(
    network: Network, start: Callable[..., Launch], tmp_path: Path
) -> None:
    listen = "import socket, time; held = socket.create_server(('', 23456)); print('held', flush=True); time.sleep(100)"
    command = [*network.inside("node1", tmp_path), sys.executable, "-c", listen]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        status, _, err = start(SIGNED, "--port", "23456").end()
        holder.kill()
    assert (status, err) == (2, "error: port 23456 is in use on node1: name another, or leave --port out.\n")


def test_a_file_that_the_far_host_does_not_see(network: Network, start: Callable[..., Launch], tmp_path: Path) -> None:
    hidden = tmp_path / "only-here"
    hidden.mkdir()
    (hidden / "train.csv").write_text("text,label\n")
    inside = network.inside("node2", tmp_path)
    subprocess.run([*inside, "mount", "-t", "tmpfs", "tmpfs", str(hidden)], check=True)
    status, _, err = start(SIGNED, "--data.source", f"{{train = '{hidden}/train.csv'}}").end()
    subprocess.run([*inside, "umount", str(hidden)], check=True)
    assert status == 2, err
    assert f"'{hidden}/train.csv' is not there on node2" in err


def test_a_killed_rank_on_the_far_host(start: Callable[..., Launch], tmp_path: Path) -> None:
    launched = start(FOREVER)
    launched.wait_for(both_signed)
    (pid,) = pids(tmp_path, 1)
    os.kill(pid, signal.SIGKILL)
    status, _, err = launched.end()
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith("error: rank 1 on node2 was killed by SIGKILL")
    assert last.endswith(f"its log: {tmp_path}/run/logs/rank-1.log")
    assert processes_of(tmp_path) == []


def test_the_far_ranks_own_error_is_the_last_thing_said(start: Callable[..., Launch], tmp_path: Path) -> None:
    status, _, err = start("if RANK:\n    raise RuntimeError('boom')\n" + FOREVER).end()
    assert status == 1
    assert err.splitlines()[-2:] == [
        "RuntimeError: boom",
        f"error: rank 1 on node2 ended with status 1; its log: {tmp_path}/run/logs/rank-1.log",
    ]


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_a_signal_reaches_the_ranks_of_both_hosts(start: Callable[..., Launch], tmp_path: Path, sent: str) -> None:
    launched = start(SAVES)
    launched.wait_for(both_signed)
    launched.send(signal.Signals[sent])
    assert launched.end()[0] == 75
    assert [launched.signs(rank)[1:] for rank in (0, 1)] == [[sent], [sent]]
    assert processes_of(tmp_path) == []


def test_the_far_ranks_end_when_ftlaunch_dies(start: Callable[..., Launch], tmp_path: Path) -> None:
    launched = start(SAVES)
    launched.wait_for(both_signed)
    launched.send(signal.SIGKILL)
    wait_for(lambda: not processes_of(tmp_path))
    assert [launched.signs(rank)[1:] for rank in (0, 1)] == [["SIGTERM"], ["SIGTERM"]]
    launched.process.communicate()


def test_a_host_that_is_cut_off(network: Network, start: Callable[..., Launch], tmp_path: Path) -> None:
    launched = start(FOREVER)
    launched.wait_for(both_signed)
    network.cut("node2")
    try:
        status, _, err = launched.end(60)  # ssh notices within 15 s; real ranks notice sooner
    finally:
        network.heal("node2")
    assert status == 1
    assert "error: the connection to node2 was lost" in err
