"""Tests that no stranger on the network holds up a rank, and that ranks of one machine use its loopback address."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ftsys.errors import LaunchError
from ftsys.train.fault_tolerance import heartbeat
from ftsys.train.fault_tolerance.heartbeat import _accepted, _Connection
from ftsys.train.fault_tolerance.listener import ALL, master_address, open_listener

TOKEN = "right"
STRANGERS = {
    "silent": b"",
    "slow": b'{"rank"',
    "deep": b"[" * 900 + b"\n",
    "long": b"x" * 5_000,
    "no JSON": b"GET / HTTP/1.1\r\n\r\n",
    "a list": b"[1]\n",
    "wrong token": json.dumps({"rank": 1, "token": "wrong"}).encode() + b"\n",
    "no token": b'{"rank": 1}\n',
    "token of another type": b'{"rank": 1, "token": ["right"]}\n',
    "token that UTF-8 cannot hold": b'{"rank": 1, "token": "\\ud800"}\n',
    "no rank": b'{"token": "right"}\n',
    "rank 0": b'{"rank": 0, "token": "right"}\n',
    "rank too high": b'{"rank": 2, "token": "right"}\n',
    "rank of another type": b'{"rank": {}, "token": "right"}\n',
}


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    with open_listener(["", ""])[0] as made:
        yield made


def opened(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=10)


@pytest.mark.parametrize("said", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_holds_up_no_rank(listener: socket.socket, said: bytes) -> None:
    found: dict[int, _Connection] = {}
    with opened(listener) as stranger, opened(listener) as rank:
        stranger.sendall(said)
        accepting = threading.Thread(target=lambda: found.update(_accepted(listener, 2, TOKEN)))
        accepting.start()
        rank.sendall(b'{"rank": 1, ')
        rank.sendall(json.dumps({"token": TOKEN})[1:].encode() + b'\n{"kind": "heartbeat"}\n{"kind"')
        accepting.join(10)
        assert list(found) == [1]
        rank.sendall(b': "second"}\n')
        assert found[1].socket.getpeername() == rank.getsockname()
        assert found[1].receive() == ([{"kind": "heartbeat"}, {"kind": "second"}], False)
    found[1].socket.close()


def test_silent_strangers_do_not_use_up_the_open_files(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_MOST_WAITING", 3)
    found: dict[int, _Connection] = {}
    with ExitStack() as stack:
        accepting = threading.Thread(target=lambda: found.update(_accepted(listener, 2, TOKEN)))
        accepting.start()
        strangers = [stack.enter_context(opened(listener)) for _ in range(9)]
        assert strangers[0].recv(1) == b"", "the oldest are closed"
        with opened(listener) as rank:
            rank.sendall(json.dumps({"rank": 1, "token": TOKEN}).encode() + b"\n")
            accepting.join(10)
        assert list(found) == [1]
        found[1].socket.close()


def test_a_missing_rank_is_named(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "CONNECT_SECONDS", 0.2)
    with opened(listener), pytest.raises(LaunchError, match=r"rank\(s\) \[1, 2\] did not reach rank 0"):
        _accepted(listener, 3, TOKEN)


def test_deep_json_closes_a_connection_and_raises_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"[" * 50_000 + b"\n")
        connection = _Connection(ours)
        messages, ended = connection.receive()
        assert messages == []
        assert ended


def test_a_run_that_ends_does_not_wait_for_the_next_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 1000.0)
    beats: list[None] = []
    own = heartbeat.Heartbeat(lambda *_: None, lambda *_: None, lambda: beats.append(None), dict)
    own.connect(0, 1)
    closing = threading.Thread(target=own.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert len(beats) <= 1


@pytest.fixture
def far() -> str:
    """An address of this machine that others may reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("local", "addresses", "listens", "told"),
    [
        ("2", ["192.0.2.1", "192.0.2.1"], "127.0.0.1", "127.0.0.1"),  # one machine: whatever MASTER_ADDR says
        ("1", ["127.0.1.1", "{far}"], "{far}", "{far}"),  # rank 0's own name leads to itself, as in Debian
        ("1", ["", "{far}"], "{far}", "{far}"),  # and here rank 0 does not know it
        ("1", ["{far}", "{far}", "127.0.1.1", ""], "{far}", "{far}"),  # another rank beside rank 0
        ("1", ["127.0.1.1", "127.0.1.1"], "127.0.0.1", "127.0.0.1"),  # no rank is elsewhere
        (None, ["127.0.0.1", "127.0.0.1"], "127.0.0.1", "127.0.0.1"),
        ("1", ["127.0.1.1", "192.0.2.1"], "0.0.0.0", ALL),  # behind a translation of addresses
        ("1", ["127.0.1.1", "{far}", "192.0.2.1"], "0.0.0.0", ALL),
    ],
)
def test_it_listens_where_the_ranks_are(
    monkeypatch: pytest.MonkeyPatch, far: str, local: str | None, addresses: list[str], listens: str, told: str
) -> None:
    for name in ("LOCAL_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    monkeypatch.setenv("WORLD_SIZE", "2")
    listener, address = open_listener([each.format(far=far) for each in addresses])
    with listener:
        assert (listener.getsockname()[0], address) == (listens.format(far=far), told.format(far=far))


@pytest.mark.parametrize(
    ("named", "address"),
    [("192.0.2.1", "192.0.2.1"), ("localhost", "127.0.0.1"), (None, "127.0.0.1"), ("no.such.host.invalid", "")],
)
def test_each_rank_tells_where_it_would_connect(
    monkeypatch: pytest.MonkeyPatch, named: str | None, address: str
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    if named is not None:
        monkeypatch.setenv("MASTER_ADDR", named)
    assert master_address() == address


def test_a_rank_connects_to_the_address_that_rank_0_tells(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "no.such.host.invalid")
    address, port = listener.getsockname()
    connection = heartbeat._connected(1, address, port, TOKEN)
    accepted = listener.accept()[0]
    with connection.socket, accepted:
        assert json.loads(accepted.recv(1000)) == {"rank": 1, "token": TOKEN}
    with pytest.raises(LaunchError, match=r"rank 1 cannot reach rank 0 at 'no.such.host.invalid'"):
        heartbeat._connected(1, ALL, port, TOKEN)
