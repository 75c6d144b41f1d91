"""Tests the control of peers, with a small program in place of them."""

import sys
from pathlib import Path

import pytest

from ftsys.bench.harness import rounds
from ftsys.bench.harness.rounds import Crew, Figures, PeerFailed, Ranks, Worker, in_turns
from ftsys.errors import ConfigError

SPEAKER = """
import json, sys
behaviour = sys.argv[1]
if behaviour == "refuse":
    print(json.dumps({"wrong_input": "no such thing"}), flush=True)
if behaviour == "die":
    sys.exit("it is broken")
print(json.dumps({"ready": behaviour}), flush=True)
for number, line in enumerate(sys.stdin):
    if behaviour == "die later":
        sys.exit("no block today")
    seconds = 2.0 if behaviour == "slow" else 1.0
    block = {"seconds": seconds, "tokens": 100 * (number + 1), "examples": 4, "steps": 2, "memory": len(behaviour)}
    print(json.dumps(block), flush=True)
"""


def worker(behaviour: str, folder: Path) -> Worker:
    return Worker(behaviour, folder / f"{behaviour}.log", program=(sys.executable, "-c", SPEAKER))


def test_blocks_come_in_turns_and_the_warm_up_is_dropped(tmp_path: Path) -> None:
    one, other = worker("one", tmp_path), worker("slow", tmp_path)
    for each in (one, other):
        each.wait_until_ready()
    assert one.ready == {"ready": "one"}
    told: list[str] = []
    found = in_turns({"one": one, "slow": other}, repeats=2, warm_up=1, tell=told.append)
    assert [block["tokens"] for block in found["one"]] == [200, 300]
    assert [block["seconds"] for block in found["slow"]] == [2.0, 2.0]
    assert [line.partition(":")[0] for line in told] == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]
    for each in (one, other):
        each.close()


def test_every_round_begins_with_another_peer() -> None:
    order: list[str] = []

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        def block(self) -> Figures:
            order.append(self.name)
            return {"seconds": 1.0}

    in_turns({name: Noting(name) for name in "abc"}, repeats=2, warm_up=1)
    assert "".join(order) == "abcbcacab"


def test_ranks_take_as_long_as_the_slowest(tmp_path: Path) -> None:
    ranks = Ranks([worker("one", tmp_path), worker("slow", tmp_path)])
    for each in ranks.workers:
        each.wait_until_ready()
    block = ranks.block()
    assert (block["seconds"], block["tokens"], block["memory"]) == (2.0, 100, 4)
    for each in ranks.workers:
        each.close()


def test_a_peer_that_dies_is_told_of_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match=r"die ended without an answer \(exit status 1\):\nit is broken"):
        worker("die", tmp_path).wait_until_ready()
    later = worker("die later", tmp_path)
    later.wait_until_ready()
    with pytest.raises(PeerFailed, match="no block today"):
        later.block()


def test_a_peer_that_hangs_is_ended(tmp_path: Path) -> None:
    hanging = worker("one", tmp_path)
    hanging.wait_until_ready()
    with pytest.raises(PeerFailed, match="has said nothing for 0 s"):
        hanging.receive(0.05)
    assert hanging._process.poll() is not None


def test_wrong_input_found_by_a_peer_is_wrong_input_here(tmp_path: Path) -> None:
    refusing = worker("refuse", tmp_path)
    with pytest.raises(ConfigError, match="no such thing"):
        refusing.wait_until_ready()
    refusing.close()


def test_a_crew_leaves_with_its_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds.Worker.__init__, "__defaults__", (None, (sys.executable, "-c", SPEAKER)))
    with Crew(tmp_path / "work") as crew:
        added = [crew.add("first", "one"), crew.add("second", "slow")]
        for each in added:
            each.wait_until_ready()
    assert [each._process.poll() for each in added] == [0, 0]
