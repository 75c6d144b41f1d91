"""Who is to blame for a hang, and what a broken peer does to a rank's line."""

import socket

import pytest

from ftsys.train.fault_tolerance.heartbeat import _Line
from ftsys.train.fault_tolerance.watchdog import suspects

IN_COLLECTIVE = 'File "torch/distributed/distributed_c10d.py", line 1, in all_reduce\n'
AT_HOME = 'File "ftsys/data/batching/loader.py", line 1, in __next__\n'


@pytest.mark.parametrize(
    ("positions", "stacks", "expected"),
    [
        ({0: 5, 1: 4, 2: 5}, {0: IN_COLLECTIVE, 1: AT_HOME, 2: IN_COLLECTIVE}, [1]),
        ({0: 5, 1: 5, 2: 5}, {0: IN_COLLECTIVE, 1: IN_COLLECTIVE, 2: AT_HOME}, [2]),
        ({0: 5, 1: 5}, {0: IN_COLLECTIVE, 1: IN_COLLECTIVE}, [0, 1]),
        ({0: 5, 1: 4}, {0: AT_HOME, 1: IN_COLLECTIVE}, [1]),
        ({0: 5, 1: 5}, {0: IN_COLLECTIVE}, [1]),
    ],
)
def test_suspects(positions: dict[int, int], stacks: dict[int, str], expected: list[int]) -> None:
    assert suspects({rank: {"position": place} for rank, place in positions.items()}, stacks) == expected


def test_words_arrive_whole_however_they_are_cut() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = _Line(ours)
        theirs.sendall(b'{"kind": "be')
        assert line.receive() == ([], False)
        theirs.sendall(b'at"}\n{"kind": "left"}\n')
        assert line.receive() == ([{"kind": "beat"}, {"kind": "left"}], False)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b""])
def test_nonsense_and_a_closed_end_are_the_end_of_a_line(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        line = _Line(ours)
        theirs.sendall(sent)
        theirs.close()
        assert line.receive() == ([], True)
