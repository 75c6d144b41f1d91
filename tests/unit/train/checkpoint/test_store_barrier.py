"""Tests the barrier over the key-value store: results, errors, and that nothing in the store is executed."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import DistNetworkError, HashStore

from ftsys.errors import DamagedError, FtsysError, StorageError
from ftsys.train.checkpoint import store_barrier
from ftsys.train.checkpoint.store_barrier import StoreBarrier

Ranks = Callable[[int], StoreBarrier]


@pytest.fixture
def barrier(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    """Return the barrier of a rank of two; the caller says which rank calls it."""
    store = HashStore()
    monkeypatch.setattr(store_barrier, "world_size", lambda: 2)
    monkeypatch.setattr(store_barrier, "_get_default_store", lambda: _Shared(store))

    def of_rank(number: int) -> StoreBarrier:
        monkeypatch.setattr(store_barrier, "rank", lambda: number)
        return StoreBarrier()

    return of_rank


class _Shared:
    """Stands for the process group's store, whose clones are connections to the same values."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def clone(self) -> Any:
        return self.store


def test_rank_0_concludes_with_the_results_of_all(barrier: Ranks) -> None:
    second = barrier(1)
    results: list[Any] = []
    with ThreadPoolExecutor() as pool:
        entry = {"weights.safetensors": {"bytes": 3, "sha256": "ab"}}
        waiting = pool.submit(lambda: second.run("save", lambda: entry, lambda _: None))
        _until_written(second, "save/1")
        barrier(0).run("save", dict, results.append)
        waiting.result(timeout=10)
    assert results == [[{}, entry]]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (StorageError("the disk is full"), StorageError, "the disk is full"),
        (DamagedError("half a file"), DamagedError, "half a file"),
        (ZeroDivisionError("by zero"), FtsysError, "rank 1 failed: ZeroDivisionError: by zero"),
    ],
)
def test_an_error_is_raised_on_the_other_rank_too(
    barrier: Ranks, error: Exception, kind: type[FtsysError], message: str
) -> None:
    def fail() -> None:
        raise error

    second = barrier(1)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lambda: second.run("save", fail, lambda _: None))
        _until_written(second, "save/1")
        with pytest.raises(FtsysError) as raised:
            barrier(0).run("save", dict, lambda _: pytest.fail("concluded"))
        assert (type(raised.value), str(raised.value)) == (kind, message)
        with pytest.raises(type(error)):
            waiting.result(timeout=10)


class _Touch:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "written",
    [b"{}", b"[1]", b"[null, 3]", b'[1, ["a", 2]]', b"\xff", b"[" + b"9" * 400 + b", null]", b"[" * 100_000, "pickle"],
)
def test_a_strangers_value_is_refused_and_never_run(barrier: Ranks, tmp_path: Path, written: bytes | str) -> None:
    made = tmp_path / "made"
    first = barrier(0)
    first._store.set("save/1", pickle.dumps(_Touch(made)) if isinstance(written, str) else written)
    with pytest.raises(FtsysError, match="no message of a rank at 'save/1'"):
        first.run("save", dict, lambda _: pytest.fail("concluded"))
    assert not made.exists()
    assert "no message of a rank" in str(first._read("save")[1]), "the other ranks hear of it"


@pytest.mark.parametrize("call", ["get", "set", "delete_key"])
def test_a_store_whose_server_is_gone_is_said(barrier: Ranks, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def gone(*arguments: Any) -> None:
        raise DistNetworkError("Broken pipe")

    own = barrier(0)
    own._store.set("save/1", "[null, null]")
    monkeypatch.setattr(own, "_store", _Broken(own._store, call, gone))
    with pytest.raises(FtsysError, match=r"key-value store is gone \(Broken pipe\).*start the same command again"):
        own.run("save", dict, lambda _: None)


class _Broken:
    """Stands for a connection to a store, of which one method fails."""

    def __init__(self, store: Any, method: str, failing: Callable[..., None]) -> None:
        self.get, self.set, self.delete_key = store.get, store.set, store.delete_key
        setattr(self, method, failing)


def _until_written(barrier: StoreBarrier, key: str) -> None:
    barrier._store.wait([key])
