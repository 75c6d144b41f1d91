"""What the ranks do when one of them hangs, fails, dies or is told to stop. Beats take a second: so do these tests."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ftsys.errors import ConfigError
from ftsys.files.integrity import sha256_of
from ftsys.run_folder.claim import claim_run_folder
from ftsys.run_folder.status_writer import StatusWriter
from ftsys.train.fault_tolerance import heartbeat
from ftsys.train.fault_tolerance.listener import open_listener
from ftsys.train.fault_tolerance.signals import Interruption
from ftsys.train.fault_tolerance.watchdog import Watchdog

PATIENCE = 30.0


class Leaving:
    """Stands in for `os._exit`: remembers the status, and lets the rank live on."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.told = threading.Event()

    def __call__(self, status: int) -> None:
        if self.status is None:
            self.status = status
        self.told.set()


def _watchdog(folder: Path, hung_after: float = 0, most_silent: int | None = None) -> tuple[Watchdog, Leaving]:
    from torch import distributed

    rank = distributed.get_rank()
    os.environ["RANK"], os.environ["MASTER_ADDR"] = str(rank), "127.0.0.1"
    claim = claim_run_folder(folder, "run", overwrite=False, rank=rank)
    leaving = Leaving()
    status = StatusWriter(folder, claim.attempt)
    watchdog = Watchdog(status, Interruption(), hung_after, leave=leaving, most_silent=most_silent)
    watchdog.begin(rank, distributed.get_world_size())
    return watchdog, leaving


def _status(folder: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return status


def rank_1_hangs(folder: Path) -> int | None:
    from torch import distributed

    watchdog, leaving = _watchdog(folder, hung_after=3)
    with watchdog.watching():
        watchdog.mark("train", 7)
        if distributed.get_rank() == 1:
            leaving.told.wait(PATIENCE)  # the hang
        else:
            watchdog.mark("evaluate", 7, together=False)
        distributed.barrier()
        leaving.told.wait(PATIENCE)
    return leaving.status


def test_a_hung_rank_is_named_with_its_stack(world: Any, tmp_path: Path) -> None:
    assert world(2).run(rank_1_hangs, tmp_path) == [76, 76]
    status = _status(tmp_path)
    assert (status["state"], status["exit"]) == ("hung", 76)
    assert "rank 1 hangs in phase 'train', step 7" in status["reason"]
    assert "in rank_1_hangs" in status["reason"]
    assert "rank 0 hangs" not in status["reason"]


def rank_1_hashes(folder: Path) -> int | None:
    from torch import distributed

    watchdog, leaving = _watchdog(folder, hung_after=4)
    with watchdog.watching():
        for _ in range(50 if distributed.get_rank() == 1 else 0):
            sha256_of(folder / "status.json")  # as of a large checkpoint on a slow disk
            time.sleep(0.2)
        distributed.barrier()
    return leaving.status


def test_a_rank_that_reads_a_slow_disk_does_not_hang(world: Any, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    assert world(2).run(rank_1_hashes, tmp_path) == [None, None]


def rank_1_fails(folder: Path) -> tuple[str, int | None]:
    from torch import distributed

    watchdog, leaving = _watchdog(folder)
    try:
        with watchdog.watching():
            if distributed.get_rank() == 1:
                raise ConfigError("rank 1 cannot have this")
            leaving.told.wait(PATIENCE)
    except ConfigError as error:
        return str(error), leaving.status
    return "", leaving.status


def test_one_ranks_error_ends_the_others_with_its_status(world: Any, tmp_path: Path) -> None:
    assert world(2).run(rank_1_fails, tmp_path) == [("", 2), ("rank 1 cannot have this", None)]
    assert "rank 1 left with exit status 2: rank 1 cannot have this" in _status(tmp_path)["reason"]


def rank_1_fails_and_breaks_a_collective(folder: Path) -> int | None:
    from torch import distributed

    watchdog, leaving = _watchdog(folder)
    distributed.barrier()
    try:
        with watchdog.watching():
            if distributed.get_rank() == 1:
                raise ConfigError("rank 1 cannot have this")
            raise RuntimeError("connection closed by peer")
    except (ConfigError, RuntimeError):
        return leaving.status


def test_a_broken_collective_does_not_hide_the_error_that_broke_it(world: Any, tmp_path: Path) -> None:
    assert world(2).run(rank_1_fails_and_breaks_a_collective, tmp_path) == [2, None]
    assert "rank 1 left with exit status 2: rank 1 cannot have this" in _status(tmp_path)["reason"]


def all_fail(folder: Path) -> int | None:
    watchdog, leaving = _watchdog(folder)
    try:
        with watchdog.watching():
            raise ConfigError("nobody can have this")
    except ConfigError:
        time.sleep(1)
    return leaving.status


def test_an_error_of_all_ranks_is_left_to_them(world: Any, tmp_path: Path) -> None:
    assert world(2).run(all_fail, tmp_path) == [None, None]


def a_rank_vanishes(folder: Path, which: int) -> int | None:
    from torch import distributed

    watchdog, leaving = _watchdog(folder)
    watchdog.mark("train", 3)
    watching = 0 if which else 1
    deadline = time.monotonic() + PATIENCE
    while distributed.get_rank() == watching and time.monotonic() < deadline:
        if watchdog._seen.get(which, {}).get("step") == 3:  # it has told where it is
            break
        time.sleep(0.05)
    distributed.barrier()
    if distributed.get_rank() == which:
        watchdog._heartbeat.close()  # as the kernel does for a dead process
        return None
    leaving.told.wait(PATIENCE)
    return leaving.status


def test_a_dead_rank_ends_the_others(world: Any, tmp_path: Path) -> None:
    assert world(3).run(a_rank_vanishes, tmp_path, 2) == [1, 1, None]
    status = _status(tmp_path)
    assert status["state"] == "failed"
    assert "rank 2 died" in status["reason"]
    assert "phase 'train', step 3" in status["reason"]


def test_rank_0_is_missed_too_and_rank_1_speaks_for_it(world: Any, tmp_path: Path) -> None:
    assert world(3).run(a_rank_vanishes, tmp_path, 0) == [None, 1, 1]
    assert "rank 0 died" in _status(tmp_path)["reason"]


def rank_0_is_suspended(folder: Path) -> int | None:
    from torch import distributed

    pids: list[int] = [0] * distributed.get_world_size()
    distributed.all_gather_object(pids, os.getpid())
    watchdog, leaving = _watchdog(folder, most_silent=2)
    if distributed.get_rank() == 1:
        os.kill(pids[0], signal.SIGSTOP)
        leaving.told.wait(PATIENCE)
        os.kill(pids[0], signal.SIGCONT)
    leaving.told.wait(PATIENCE)
    watchdog._heartbeat.close()
    return leaving.status


def test_a_rank_0_that_was_suspended_blames_no_other(world: Any, tmp_path: Path) -> None:
    assert world(3).run(rank_0_is_suspended, tmp_path) == [1, 1, 1]
    assert "rank 0 died" in _status(tmp_path)["reason"]


def rank_1_is_told_to_stop(folder: Path) -> bool:
    from torch import distributed

    watchdog, _ = _watchdog(folder)
    with watchdog.watching():
        if distributed.get_rank() == 1:
            watchdog.interruption.wanted = True
        deadline = time.monotonic() + PATIENCE
        while not watchdog.interruption.wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        distributed.barrier()
    return watchdog.interruption.wanted


def test_a_wish_to_stop_reaches_every_rank(world: Any, tmp_path: Path) -> None:
    assert world(3).run(rank_1_is_told_to_stop, tmp_path) == [True, True, True]


def as_on_two_machines(far: str) -> list[str]:
    """Rank 0 finds its own name at a loopback address, as Debian has it, and rank 1 at the address in the network.

    Returns the addresses at which the rank listened, and those of its end of each connection.
    """
    from torch import distributed

    rank, found = distributed.get_rank(), []

    def opened(addresses: Sequence[str]) -> tuple[socket.socket, str]:
        listening, address = open_listener(addresses)
        found.append(listening.getsockname()[0])
        return listening, address

    os.environ.update(LOCAL_WORLD_SIZE="1", WORLD_SIZE="2", MASTER_ADDR=far if rank else "127.0.1.1")
    connected = heartbeat.Heartbeat(lambda *_: None, lambda *_: None, lambda: None, dict)
    with patch.object(heartbeat, "open_listener", opened):
        connected.connect(rank, 2)
    found += [each.socket.getsockname()[0] for each in connected._connections.values()]
    distributed.barrier()
    connected.close()
    return found


def test_heartbeats_go_to_the_address_that_the_other_machine_knows(world: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        far = probe.getsockname()[0]
    assert world(2).run(as_on_two_machines, far) == [[far, far], [far]]
