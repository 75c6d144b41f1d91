"""Tests the rendezvous port: derived from the job, outside the ephemeral range, and tested by binding."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftsys.errors import LaunchError
from launcher.host.ports import HIGHEST, LOWEST, can_bind, ephemeral_ports, free_port, named_port, ports_of_job

USUAL = range(32_768, 61_000)


def no_port(_port: int) -> bool:
    return False


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.create_server(("", 0)) as listener:
        yield listener.getsockname()[1]


@given(st.text(max_size=30), st.integers(1, 65_535), st.integers(0, 65_535))
def test_every_port_of_a_job_is_allowed_and_comes_once(job: str, first: int, count: int) -> None:
    ephemeral = range(first, min(first + count, 65_536))
    ports = list(ports_of_job(job, ephemeral))
    allowed = set(range(LOWEST, HIGHEST + 1)) - set(ephemeral)
    assert len(ports) == len(set(ports))
    assert set(ports) == (allowed or set(range(LOWEST, HIGHEST + 1)))


def test_a_job_has_its_port_and_another_job_another() -> None:
    first = {job: next(ports_of_job(job, USUAL)) for job in ("slurm job 17", "slurm job 18", "/data/runs/mrpc")}
    assert first == {job: next(ports_of_job(job, USUAL)) for job in first}
    assert len(set(first.values())) == 3


def test_the_next_port_is_taken_where_one_is_busy() -> None:
    own, following = list(ports_of_job("job", USUAL))[:2]
    assert free_port("job", USUAL, lambda port: port != own) == following


def test_a_real_busy_port_is_found(busy: int) -> None:
    assert not can_bind(busy)
    assert can_bind(free_port("this test", ephemeral_ports()))


def test_a_port_that_is_bound_on_one_address_is_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not can_bind(listener.getsockname()[1])


def test_a_named_port(busy: int) -> None:
    assert named_port(29_500, lambda port: True) == 29_500
    with pytest.raises(LaunchError, match=f"port {busy} is in use on .*: name another, or leave --port out"):
        named_port(busy)
    for port in (0, -1, 65_536):
        with pytest.raises(LaunchError, match="is not a port: give a number from 1 to 65535"):
            named_port(port)


def test_nothing_can_be_bound() -> None:
    with pytest.raises(LaunchError, match="can be bound: name a free one with --port"):
        free_port("job", USUAL, no_port)


def test_the_kernels_range_is_read(tmp_path: Path) -> None:
    assert ephemeral_ports(tmp_path) == USUAL
    folder = tmp_path / "proc/sys/net/ipv4"
    folder.mkdir(parents=True)
    (folder / "ip_local_port_range").write_text("1024\t65000\n")
    assert ephemeral_ports(tmp_path) == range(1024, 65_001)
