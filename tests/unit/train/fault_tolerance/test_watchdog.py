"""Tests when ranks count as hung and which ranks that is attributed to, and the framing of heartbeat messages."""

import socket
from pathlib import Path

import pytest

from ftsys.run_folder.status_writer import StatusWriter
from ftsys.train.fault_tolerance.heartbeat import _Connection
from ftsys.train.fault_tolerance.signals import Interruption
from ftsys.train.fault_tolerance.watchdog import Watchdog, suspects

IN_COLLECTIVE = 'File "torch/distributed/distributed_c10d.py", connection 1, in all_reduce\n'
IN_OWN_CODE = 'File "ftsys/data/batching/loader.py", connection 1, in __next__\n'
IN_BACKWARD = 'File "/x/torch/autograd/graph.py", line 1, in _engine_run_backward\n'


@pytest.mark.parametrize(
    ("positions", "stacks", "expected"),
    [
        ({0: 5, 1: 4, 2: 5}, {0: IN_COLLECTIVE, 1: IN_OWN_CODE, 2: IN_COLLECTIVE}, [1]),
        ({0: 5, 1: 5, 2: 5}, {0: IN_COLLECTIVE, 1: IN_COLLECTIVE, 2: IN_OWN_CODE}, [2]),
        ({0: 5, 1: 5}, {0: IN_COLLECTIVE, 1: IN_COLLECTIVE}, [0, 1]),
        ({0: 5, 1: 4}, {0: IN_OWN_CODE, 1: IN_COLLECTIVE}, [1]),
        ({0: 5, 1: 5}, {0: IN_COLLECTIVE}, [1]),
        ({0: 5, 1: 5}, {0: IN_BACKWARD, 1: IN_OWN_CODE}, [1]),  # it may wait there, for the gradients of the other
        ({0: 5, 1: 5}, {0: IN_BACKWARD, 1: IN_COLLECTIVE}, [0]),
        ({0: 5, 1: 5}, {0: IN_BACKWARD, 1: IN_BACKWARD}, [0, 1]),
    ],
)
def test_suspects(positions: dict[int, int], stacks: dict[int, str], expected: list[int]) -> None:
    assert suspects({rank: {"position": position} for rank, position in positions.items()}, stacks) == expected


def test_ranks_that_may_compile_do_not_hang(tmp_path: Path) -> None:
    watchdog = Watchdog(StatusWriter(tmp_path, 1), Interruption(), hung_after=2.0)
    with watchdog.compiling():
        assert not any(watchdog._is_idle() for _ in range(9))
    assert [watchdog._is_idle() for _ in range(3)] == [False, True, True]


def test_messages_arrive_whole_however_they_are_split() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = _Connection(ours)
        theirs.sendall(b'{"kind": "heart')
        assert connection.receive() == ([], False)
        theirs.sendall(b'beat"}\n{"kind": "left"}\n')
        assert connection.receive() == ([{"kind": "heartbeat"}, {"kind": "left"}], False)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b""])
def test_invalid_data_and_a_closed_end_end_a_connection(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        connection = _Connection(ours)
        theirs.sendall(sent)
        theirs.close()
        assert connection.receive() == ([], True)
