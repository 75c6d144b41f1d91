"""Tests that ranks of one machine open nothing that another machine reaches: torch's store, and gloo's sockets."""

import os
import subprocess
import sys

import pytest

from ftsys.ranks import free_port, is_loopback

JOIN = """
import psutil, sys
from torch import distributed
from ftsys.distributed import stay_on_loopback
for _ in range(2):
    stay_on_loopback()
    distributed.init_process_group("gloo")
    distributed.barrier()
    found = psutil.Process().net_connections(kind="tcp")
    print(*(each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN))
    distributed.barrier()
    if distributed.get_world_size() > 1:
        break
    distributed.destroy_process_group()
"""
ONE_RANK = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


def listening(*worlds: dict[str, str]) -> list[list[list[str]]]:
    """The addresses at which each rank listens, in each of the groups that it joins."""
    ranks = [
        subprocess.Popen([sys.executable, "-c", JOIN], env=os.environ | world, stdout=subprocess.PIPE, text=True)
        for world in worlds
    ]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * len(ranks)
    return [[line.split() for line in text.splitlines()] for text in said]


@pytest.mark.parametrize("launcher", ["deepspeed", "mpirun"])
def test_the_ranks_of_one_machine(launcher: str) -> None:
    """Those of a launcher that serves no store: rank 0 does."""
    local = "LOCAL_SIZE" if launcher == "deepspeed" else "LOCAL_WORLD_SIZE"
    world = ONE_RANK | {"WORLD_SIZE": "2", local: "2", "MASTER_PORT": str(free_port())}
    first, second = listening(world, world | {"RANK": "1"})
    assert len(first[0]) >= 2, "a store and gloo"
    assert [address for address in first[0] + second[0] if not is_loopback(address)] == []


def test_one_process_may_join_a_group_again() -> None:
    ((first, second),) = listening(ONE_RANK)
    assert first
    assert [address for address in first + second if not is_loopback(address)] == []


@pytest.mark.parametrize(
    ("more", "served"),
    [
        ({}, True),
        ({"RANK": "1"}, False),
        ({"MASTER_ADDR": "localhost"}, False),  # it may have an IPv6 address, too
        ({"MASTER_ADDR": "192.0.2.1"}, False),
        ({"MASTER_PORT": "none"}, False),
        ({"MASTER_PORT": "65536"}, False),
        ({"MASTER_PORT": "1234567890123456789012"}, False),
        ({"TORCHELASTIC_USE_AGENT_STORE": "True"}, False),  # torchrun serves it
    ],
)
def test_rank_0_serves_the_store_where_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, str], served: bool
) -> None:
    from ftsys import distributed

    for name, value in (ONE_RANK | more).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_own_stores", [])
    distributed.stay_on_loopback()
    assert len(distributed._own_stores) == served
    assert (os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True") == (
        served or more.keys() == {"TORCHELASTIC_USE_AGENT_STORE"}
    )


def test_a_port_in_use_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from ftsys import distributed

    with socket.create_server(("127.0.0.1", 0)) as holder:
        for name, value in (ONE_RANK | {"MASTER_PORT": str(holder.getsockname()[1])}).items():
            monkeypatch.setenv(name, value)
        distributed.stay_on_loopback()
        assert "TORCHELASTIC_USE_AGENT_STORE" not in os.environ


@pytest.mark.parametrize(
    ("environ", "interface"),
    [
        ({"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node1"}, "lo"),
        ({"LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "node1"}, None),
        ({"LOCAL_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "eth7"}, "eth7"),
        ({"MASTER_ADDR": "127.0.0.1"}, "lo"),
    ],
)
def test_gloo_has_the_loopback_on_one_machine(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], interface: str | None
) -> None:
    from ftsys.distributed import stay_on_loopback

    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"RANK": "1", "WORLD_SIZE": "2"} | environ).items():
        monkeypatch.setenv(name, value)
    stay_on_loopback()
    assert os.environ.get("GLOO_SOCKET_IFNAME") == interface
