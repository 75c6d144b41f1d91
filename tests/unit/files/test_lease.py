"""Tests leases: one holder at a time; exactly one other process replaces a dead or silent holder."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftsys.errors import ConfigError
from ftsys.files.lease import Lease, LeaseTimes, LeaseWatch, generations, hold_or_wait, seems_held

FAST = LeaseTimes(renew=0.05, stale=0.6, poll=0.01)
SPAWN = multiprocessing.get_context("spawn")


def take(base: Path, times: LeaseTimes = FAST) -> Lease | None:
    return LeaseWatch(base, times).try_take()


def record_of(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def leave_silent(base: Path, number: int = 1, **facts: Any) -> Path:
    """The lease file of a holder on another machine."""
    path = Path(f"{base}.lease-{number}")
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "boot": "other", "token": "x", **facts}))
    return path


def test_a_held_lease_is_not_given_twice(tmp_path: Path) -> None:
    with take(tmp_path / "a") or pytest.fail("free") as lease:
        assert take(tmp_path / "a") is None
        assert not lease.lost
        assert record_of(lease.path)["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []
    again = take(tmp_path / "a")
    assert again is not None
    again.release()
    again.release()


def test_renewal_keeps_it_from_going_stale(tmp_path: Path) -> None:
    times = LeaseTimes(renew=0.05, stale=2.0, poll=0.01)  # a slow disk may hold up a renewal
    watch = LeaseWatch(tmp_path / "a", times)
    with take(tmp_path / "a", times) or pytest.fail("free") as lease:
        start = record_of(lease.path)["renewals"]
        deadline = time.monotonic() + 1.2 * times.stale
        while time.monotonic() < deadline:
            assert watch.try_take() is None
            time.sleep(times.poll)
        assert record_of(lease.path)["renewals"] != start


def _link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, _link], ids=["folder", "pipe", "link"])
def test_what_no_process_makes_is_refused_at_once(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.lease-1")
    for use in (seems_held, take, lambda base: hold_or_wait(base, lambda: None, FAST)):
        with pytest.raises(
            ConfigError, match=r"a\.lease-1' is no file, so no process can hold it as a lease: remove it"
        ):
            use(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.lease-1"]


def test_a_giant_lease_is_that_of_a_silent_holder(tmp_path: Path) -> None:
    (tmp_path / "a.lease-1").touch()
    os.truncate(tmp_path / "a.lease-1", 4 << 30)
    assert seems_held(tmp_path / "a")
    assert take(tmp_path / "a") is None


def test_a_silent_holder_elsewhere_is_replaced_only_after_the_time(tmp_path: Path) -> None:
    leave_silent(tmp_path / "a")
    watch, start = LeaseWatch(tmp_path / "a", FAST), time.monotonic()
    assert watch.try_take() is None
    assert watch.holder() == "elsewhere:1"
    lease = None
    while lease is None:
        lease = watch.try_take()
        time.sleep(FAST.poll)
    assert time.monotonic() - start >= FAST.stale
    assert lease.path.name == "a.lease-2"
    lease.release()
    assert generations(tmp_path / "a") == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
def test_a_half_written_record_goes_stale_by_time(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.lease-7").write_text(content)
    watch = LeaseWatch(tmp_path / "a", FAST)
    assert watch.try_take() is None
    time.sleep(FAST.stale)
    lease = watch.try_take()
    assert lease is not None
    assert lease.path.name == "a.lease-8"
    lease.release()


def test_of_many_takers_of_a_stale_lease_one_wins(tmp_path: Path) -> None:
    leave_silent(tmp_path / "a")
    won: list[Lease] = []
    start = threading.Barrier(8)

    def taker() -> None:
        watch = LeaseWatch(tmp_path / "a", FAST)
        watch.try_take()
        time.sleep(FAST.stale)
        start.wait()
        lease = watch.try_take()
        if lease is not None:
            won.append(lease)

    threads = [threading.Thread(target=taker) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].release()


def test_of_two_takers_that_saw_the_same_files_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_silent(tmp_path / "a")
    times = LeaseTimes(renew=3600, stale=0.5)
    watches, seen = [LeaseWatch(tmp_path / "a", times) for _ in range(2)], generations(tmp_path / "a")
    for watch in watches:
        watch.try_take()
    time.sleep(times.stale)
    with monkeypatch.context() as patch:
        patch.setattr("ftsys.files.lease.generations", lambda _: seen)
        leases = [watch.try_take() for watch in watches]
    assert [lease is not None for lease in leases] == [True, False]
    assert leases[0] is not None
    leases[0].release()


def test_a_holder_that_was_replaced_knows_and_leaves_the_new_one_alone(tmp_path: Path) -> None:
    lease = take(tmp_path / "a") or pytest.fail("free")
    newer = leave_silent(tmp_path / "a", number=2)
    assert lease.lost
    lease.release()
    assert newer.exists()


def hold_and_say(base: str, pipe: Any) -> None:
    take(Path(base), LeaseTimes(renew=0.05, stale=60.0))
    pipe.send("held")
    time.sleep(60)


def test_a_killed_holder_on_this_machine_is_replaced_at_once(tmp_path: Path) -> None:
    mine, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=hold_and_say, args=(str(tmp_path / "a"), theirs), daemon=True)
    process.start()
    assert mine.recv() == "held"
    patient = LeaseTimes(stale=3600.0)
    assert take(tmp_path / "a", patient) is None
    os.kill(process.pid or 0, signal.SIGKILL)
    deadline, lease = time.monotonic() + 20, None
    while lease is None and time.monotonic() < deadline:  # not reaped yet: a zombie counts as dead too
        lease = take(tmp_path / "a", patient)
    assert lease is not None
    lease.release()
    process.join()


def test_a_later_process_with_the_same_id_is_not_the_holder(tmp_path: Path) -> None:
    lease = take(tmp_path / "a") or pytest.fail("free")
    record = record_of(lease.path)
    lease.release()
    leave_silent(tmp_path / "a", **{**record, "started": "12"})
    with take(tmp_path / "a", LeaseTimes(stale=3600.0)) or pytest.fail("its holder is dead") as newer:
        assert newer.path.name == "a.lease-2"


def test_waiting_ends_when_the_thing_is_ready(tmp_path: Path) -> None:
    leave_silent(tmp_path / "a")
    looks, told = iter([None, None, "ready"]), list[str]()
    found = hold_or_wait(tmp_path / "a", lambda: next(looks), LeaseTimes(poll=0.01, stale=3600), told.append)
    assert (found, told) == ("ready", ["elsewhere:1"])


def test_a_lease_taken_just_after_the_work_was_done_is_given_back(tmp_path: Path) -> None:
    looks = iter([None, "done by the former holder"])
    assert hold_or_wait(tmp_path / "a", lambda: next(looks), FAST) == "done by the former holder"
    assert list(tmp_path.iterdir()) == []
