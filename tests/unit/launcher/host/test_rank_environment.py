"""Tests the network interface that ranks and probes give to gloo and NCCL."""

import pytest

from launcher.host import rank_environment
from launcher.host.rank_environment import interface_environment


@pytest.fixture(autouse=True)
def interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the interface towards each host the name of that host."""
    monkeypatch.setattr(rank_environment, "interface_towards", lambda host: f"to-{host}" if host != "here" else None)


@pytest.mark.parametrize(
    ("hosts", "number", "name"),
    [
        (("node1", "node2", "node3"), 0, "to-node2"),
        (("node1", "node2", "node3"), 1, "to-node1"),
        (("node1", "node2", "node3"), 2, "to-node1"),
    ],
)
def test_the_interface_leads_to_the_first_host(hosts: tuple[str, ...], number: int, name: str) -> None:
    assert interface_environment(hosts, number, {}) == {
        "GLOO_SOCKET_IFNAME": name,
        "NCCL_SOCKET_IFNAME": f"={name}",
    }


def test_an_unknown_interface_sets_nothing() -> None:
    assert interface_environment(("here", "node2"), 1, {}) == {}


@pytest.mark.parametrize(("hosts", "number"), [(("node1",), 0), (("node1", "node1"), 1)])
def test_on_one_host_gloo_has_the_loopback(
    monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...], number: int
) -> None:
    assert interface_environment(hosts, number, {}) == {"GLOO_SOCKET_IFNAME": "lo"}
    assert interface_environment(hosts, number, {"GLOO_SOCKET_IFNAME": "eth1"}) == {}
    monkeypatch.setattr(rank_environment, "loopback_interface", lambda: None)
    assert interface_environment(hosts, number, {}) == {}


def test_the_users_setting_is_kept() -> None:
    set_by_user = {"GLOO_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": "ib1"}
    assert interface_environment(("node1", "node2"), 0, set_by_user) == {}
    del set_by_user["NCCL_SOCKET_IFNAME"]
    assert interface_environment(("node1", "node2"), 0, set_by_user) == {"NCCL_SOCKET_IFNAME": "=to-node2"}
