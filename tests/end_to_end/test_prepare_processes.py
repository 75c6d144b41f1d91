"""Several processes that want one store: one makes it, another takes over when it dies, a full disk leaves nothing."""

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftsys.data.store.verify import verify_store
from ftsys.errors import StorageError
from ftsys.files.lease import LeaseTimes
from tests.fork_server import fork_server
from tests.unit.data.test_prepare import FakeSource, make


def one_of_many(root: str, folder: str, log: str, results: Any) -> None:
    try:
        store = make(Path(root), Path(folder), FakeSource(log=Path(log), pause=0.05), LeaseTimes(poll=0.02))
        results.put((str(store.path), store.splits["train"].gather([49]).tokens.tolist()))
    except BaseException as error:  # whatever it was, the test waits for a word from each process
        results.put((repr(error), []))
        raise


def run_many(count: int, *arguments: str) -> tuple[list[Any], Any]:
    results = fork_server().Queue()
    processes = [fork_server().Process(target=one_of_many, args=(*arguments, results)) for _ in range(count)]
    for process in processes:
        process.start()
    return processes, results


def test_of_sixteen_processes_one_tokenizes_and_all_have_the_store(tmp_path: Path, minilm_folder: Path) -> None:
    processes, results = run_many(16, str(tmp_path / "stores"), str(minilm_folder), str(tmp_path / "log"))
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert len({path for path, _ in found}) == 1
    assert all(tokens == found[0][1] and tokens for _, tokens in found)
    assert [line.split()[1] for line in (tmp_path / "log").read_text().splitlines()] == ["train", "validation"]
    assert len(list((tmp_path / "stores").iterdir())) == 1


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for a minute"
        time.sleep(0.01)


def test_when_the_maker_is_killed_another_takes_over(tmp_path: Path, minilm_folder: Path) -> None:
    log, root = tmp_path / "log", tmp_path / "stores"
    processes, results = run_many(3, str(root), str(minilm_folder), str(log))
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) == 1)
    maker = int(log.read_text().split()[0])
    assert any(".tmp-" in path.name for path in root.iterdir())
    os.kill(maker, signal.SIGKILL)
    found = [results.get(timeout=120) for _ in range(2)]
    for process in processes:
        process.join()
    assert len({path for path, _ in found}) == 1
    assert verify_store(found[0][0]) == []
    makers = [line.split()[0] for line in log.read_text().splitlines()]
    assert [makers.count(pid) for pid in dict.fromkeys(makers)] == [1, 2]
    assert len(list(root.iterdir())) == 1


def small_files(root: str, folder: str, results: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        make(Path(root), Path(folder), FakeSource(count=2000))
    except StorageError as error:
        results.put(str(error))


def test_a_disk_that_takes_no_more_is_a_storage_error_that_leaves_nothing(tmp_path: Path, minilm_folder: Path) -> None:
    results = fork_server().Queue()
    process = fork_server().Process(target=small_files, args=(str(tmp_path), str(minilm_folder), results))
    process.start()
    message = results.get(timeout=120)
    process.join()
    assert "cannot be written (File too large)" in message
    assert "set data.store to a folder on another disk" in message
    assert list(tmp_path.iterdir()) == []
