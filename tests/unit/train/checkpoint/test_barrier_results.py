"""Tests what a barrier over the store hands on: results by rank, the first error, and nothing that is left behind."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import get_ident
from typing import Any

import pytest
from torch.distributed import HashStore

from ftsys.errors import CheckpointError, FtsysError, StorageError
from ftsys.train.checkpoint import store_barrier
from ftsys.train.checkpoint.store_barrier import StoreBarrier

Work = Callable[[], Any]


def alone(monkeypatch: pytest.MonkeyPatch) -> StoreBarrier:
    monkeypatch.setattr(store_barrier, "world_size", lambda: 1)
    monkeypatch.setattr(store_barrier, "_get_default_store", lambda: pytest.fail("a single rank has no store"))
    return StoreBarrier()


def fail(error: Exception) -> Work:
    def work() -> None:
        raise error

    return work


def test_a_single_rank_concludes_with_its_own_result(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[Any] = []
    alone(monkeypatch).run("save", lambda: 5, results.append)
    assert results == [[5]]


def test_a_single_rank_raises_what_its_work_or_the_conclusion_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = alone(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        barrier.run("save", fail(ZeroDivisionError()), lambda _: pytest.fail("concluded"))
    with pytest.raises(KeyError):
        barrier.run("save", dict, lambda _: fail(KeyError())())


class _Store(HashStore):
    """A store whose clone is itself, and which notes its timeout."""

    def clone(self) -> "_Store":
        return self


def meet(
    monkeypatch: pytest.MonkeyPatch,
    works: list[Work],
    conclude: Callable[[list[Any]], object],
    names: tuple[str, ...] = ("save",),
) -> tuple[list[Exception | None], _Store]:
    """Run a rank a thread, rank 0 last, through barriers of these names; returns how each ended, and the store."""
    store = _Store()
    monkeypatch.setattr(store_barrier, "world_size", lambda: len(works))
    monkeypatch.setattr(store_barrier, "_get_default_store", lambda: store)
    numbers: dict[int, int] = {}
    monkeypatch.setattr(store_barrier, "rank", lambda: numbers[get_ident()])

    def be(number: int) -> Exception | None:
        numbers[get_ident()] = number
        barrier = StoreBarrier()
        try:
            for name in names:
                barrier.run(name, works[number], conclude)
        except Exception as error:  # noqa: BLE001  # how it ended is what the tests look at
            return error
        return None

    with ThreadPoolExecutor(len(works)) as pool:
        others = [pool.submit(be, number) for number in range(1, len(works))]
        ends = [pool.submit(be, 0).result(timeout=20), *(other.result(timeout=20) for other in others)]
    return ends, store


def test_results_come_by_rank_and_leave_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[Any] = []
    ends, store = meet(monkeypatch, [lambda: "a", lambda: "b", lambda: "c"], results.append)
    assert ends == [None, None, None]
    assert results == [["a", "b", "c"]]
    assert [store.check([key]) for key in ("save", "save/1", "save/2")] == [True, False, False]


def test_barriers_of_a_long_run_leave_the_key_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"step {step}" for step in range(50))
    ends, store = meet(monkeypatch, [dict, dict, dict], lambda _: None, names)
    assert ends == [None, None, None]
    assert store.num_keys() == 1
    assert store.check([names[-1]])


def test_a_single_rank_comes_to_many_barriers(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[Any] = []
    barrier = alone(monkeypatch)
    for name in ("first", "second", "third"):
        barrier.run(name, lambda: 1, results.append)
    assert results == [[1]] * 3


def test_an_error_of_rank_0_is_itself_there_and_text_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ZeroDivisionError("by zero")
    ends, _ = meet(monkeypatch, [fail(error), dict], lambda _: pytest.fail("concluded"))
    assert ends[0] is error
    assert (type(ends[1]), str(ends[1])) == (FtsysError, "rank 0 failed: ZeroDivisionError: by zero")


def test_an_error_of_the_conclusion_reaches_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    error = CheckpointError("no")
    ends, _ = meet(monkeypatch, [dict, dict, dict], lambda _: fail(error)())
    assert ends[0] is error
    assert [(type(end), str(end)) for end in ends[1:]] == [(CheckpointError, "no")] * 2


def test_the_first_of_several_errors_is_that_of_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [StorageError("zero"), StorageError("one"), StorageError("two")]
    ends, _ = meet(monkeypatch, [fail(error) for error in errors], lambda _: pytest.fail("concluded"))
    assert ends[0] is errors[0]
    assert all(end is error for end, error in zip(ends, errors, strict=True)), "each raises its own"


def test_a_rank_without_an_error_raises_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, _ = meet(monkeypatch, [dict, dict, fail(StorageError("two"))], lambda _: pytest.fail("concluded"))
    assert [(type(end), str(end)) for end in ends] == [(StorageError, "two")] * 3


def test_a_rank_waits_for_a_slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    _, store = meet(monkeypatch, [dict, dict], lambda _: None)
    assert store.timeout == store_barrier.TIMEOUT
    assert timedelta(hours=12) <= store_barrier.TIMEOUT <= timedelta(days=7)
