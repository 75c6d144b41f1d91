"""One process tokenizes, whatever happens to it; the others find a whole store or none."""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

import ftsys.data.prepare as prepare
import ftsys.data.store.split_writer as split_writer
from ftsys.data.build_store import StoreRequest
from ftsys.data.prepare import make_or_wait
from ftsys.data.sources.source import TextBatch
from ftsys.data.store.verify import verify_store
from ftsys.data.tokenize.tokenizer import TextTokenizer
from ftsys.errors import ConfigError, DataError, StoppedEarly, StorageError
from ftsys.files.lease import LeaseTimes
from ftsys.tasks import GLUE

FAST = LeaseTimes(renew=0.2, stale=5.0, poll=0.02)


@dataclass(frozen=True)
class FakeSource:
    """`count` pairs; notes each reading in `log` and dwells `pause` seconds before each chunk."""

    count: int = 50
    log: Path | None = None
    pause: float = 0.0
    fail: Callable[[], None] | None = None
    stop_at: int | None = None
    stop: type[BaseException] = KeyboardInterrupt
    fingerprint: str = "5" * 64
    splits: tuple[str, ...] = ("train", "validation")

    def rows(self, split: str) -> int | None:
        return self.count

    def batches(self, split: str, rows_per_batch: int = 16) -> Iterator[TextBatch]:
        if self.log is not None:
            with self.log.open("a") as stream:
                stream.write(f"{os.getpid()} {split}\n")
        before = self.splits.index(split) * self.count
        for start in range(0, self.count, 16):
            time.sleep(self.pause)
            if self.stop_at is not None and before + start >= self.stop_at:
                raise self.stop("stopped")
            rows = range(start, min(start + 16, self.count))
            labels = np.array([row % 2 for row in rows])
            yield TextBatch(start, [f"row {row} of {split}" for row in rows], ["b " * row for row in rows], labels)
        if self.fail is not None:
            self.fail()


def make(
    root: Path, folder: Path, source: FakeSource, times: LeaseTimes = FAST, max_length: int = 32
) -> "prepare.Store":
    request = StoreRequest(source, GLUE["mrpc"], folder, max_length, root)
    return make_or_wait(request, lambda *_: None, times)


@pytest.fixture
def folder(minilm_folder: Path) -> Path:
    return minilm_folder


def test_the_rows_are_the_tokenizers_own(tmp_path: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    store = make(tmp_path, folder, FakeSource())
    theirs = AutoTokenizer.from_pretrained(str(folder))
    for name in ("train", "validation"):
        wanted = theirs(
            [f"row {row} of {name}" for row in range(50)],
            ["b " * row for row in range(50)],
            truncation=True,
            max_length=32,
        )
        got = store.splits[name]
        assert [got[row]["input_ids"] for row in range(50)] == wanted["input_ids"]
        assert [got[row]["token_type_ids"] for row in range(50)] == wanted["token_type_ids"]
        assert got.labels.tolist() == [row % 2 for row in range(50)]
    assert [path.name for path in tmp_path.iterdir()] == [store.fingerprint[:16]]
    assert verify_store(store.path) == []


def test_it_is_found_at_once_and_not_made_again(tmp_path: Path, folder: Path) -> None:
    log = tmp_path / "log"
    paths = {make(tmp_path / "stores", folder, FakeSource(log=log)).path for _ in range(2)}
    assert (len(paths), len(log.read_text().splitlines())) == (1, 2)


def test_a_copy_on_the_nodes_disk_is_read_in_place_of_the_shared_store(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = make(tmp_path / "stores", folder, FakeSource()).path
    copy = tmp_path / "node" / shared.name
    monkeypatch.setenv(prepare.STAGED_STORES, str(copy.parent))
    assert make(shared.parent, folder, FakeSource()).path == shared, "there is no copy"
    shutil.copytree(shared, copy)
    train = shared / "train.arrow"
    train.write_bytes(bytes(train.stat().st_size))
    store = make(shared.parent, folder, FakeSource())
    assert store.path == shared, "the copy is gone after the job"
    assert len(store.splits["train"][0]["input_ids"]) > 2
    shutil.rmtree(copy)
    with pytest.raises(DataError, match=r"stores/.*train\.arrow"):
        make(shared.parent, folder, FakeSource())


def test_whatever_decides_the_examples_makes_another_store(tmp_path: Path, folder: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed, ignore=shutil.ignore_patterns("*.safetensors"))
    (changed / "tokenizer_config.json").write_text(
        json.dumps({**json.loads((changed / "tokenizer_config.json").read_text()), "do_lower_case": False})
    )
    mrpc, rte, stsb = GLUE["mrpc"], GLUE["rte"], GLUE["stsb"]
    requests = [
        StoreRequest(FakeSource(), mrpc, folder, 32, tmp_path),
        StoreRequest(FakeSource(fingerprint="6" * 64), mrpc, folder, 32, tmp_path),
        StoreRequest(FakeSource(), mrpc, changed, 32, tmp_path),
        StoreRequest(FakeSource(), mrpc, folder, 33, tmp_path),
        StoreRequest(FakeSource(), rte, folder, 32, tmp_path),
        StoreRequest(FakeSource(), stsb, folder, 32, tmp_path),
        StoreRequest(FakeSource(splits=("train",)), mrpc, folder, 32, tmp_path),
    ]
    assert len({request.fingerprint for request in requests}) == len(requests)
    assert StoreRequest(FakeSource(), mrpc, folder, 32, tmp_path / "x").fingerprint == requests[0].fingerprint


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, StoppedEarly, DataError])
def test_an_interruption_leaves_nothing_and_gives_the_lease_back(
    tmp_path: Path, folder: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        raise error("stop")

    with pytest.raises(error):
        make(tmp_path, folder, FakeSource(fail=fail))
    assert list(tmp_path.iterdir()) == []
    assert make(tmp_path, folder, FakeSource()).splits["train"].rows == 50


@pytest.mark.parametrize(("stop_at", "stop"), [(60, KeyboardInterrupt), (95, KeyboardInterrupt), (95, StoppedEarly)])
def test_a_stopped_process_saves_the_next_one_the_work(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: int,
    stop: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of 100 rows in two splits, `stop_at` are read when the stop comes. Record batches have 8 rows."""
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", 8)
    monkeypatch.setattr(split_writer, "SAVE_EVERY", 1)
    whole = make(tmp_path / "whole", folder, FakeSource())
    with pytest.raises(stop):
        make(tmp_path / "stopped", folder, FakeSource(stop_at=stop_at, stop=stop))
    tokenized, encode = list[str](), TextTokenizer.tokenize

    def noted(self: TextTokenizer, first: list[str], second: list[str] | None) -> Any:
        tokenized.extend(first)
        return encode(self, first, second)

    monkeypatch.setattr(TextTokenizer, "tokenize", noted)
    with caplog.at_level(logging.INFO, "ftsys"):
        store = make(tmp_path / "stopped", folder, FakeSource())
    assert "an earlier process was stopped after" in caplog.text
    assert len(tokenized) < 60
    assert {path.name: path.read_bytes() for path in store.path.iterdir()} == {
        path.name: path.read_bytes() for path in whole.path.iterdir()
    }
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [store.path.name]


def test_a_full_disk_is_not_taken_for_a_wrong_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match="disk is full"):
        prepare._make_root(tmp_path / "stores")


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"data\.store=.*cannot be written"):
        make(tmp_path / "file" / "stores", folder, FakeSource())


def test_a_lost_lease_means_waiting_for_the_other_makers_store(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A maker that was stalled for long finds its folder removed; it must end with the other's store, not an error."""
    whole, taken = make(tmp_path / "other", folder, FakeSource()), list[Path]()

    def stalled_writer(request: StoreRequest, fingerprint: str, *_: object) -> Path:
        newer = tmp_path / "stores" / f"{fingerprint[:16]}.lease-2"
        newer.write_text("{}")
        taken.append(newer)
        shutil.copytree(whole.path, tmp_path / "stores" / fingerprint[:16])
        raise StorageError("its folder is gone")

    monkeypatch.setattr(prepare, "write_store", stalled_writer)
    assert make(tmp_path / "stores", folder, FakeSource()).fingerprint == whole.fingerprint
    assert taken[0].exists()


def test_a_damaged_store_is_refused_not_used(tmp_path: Path, folder: Path) -> None:
    path = make(tmp_path, folder, FakeSource()).path / "train.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train\.arrow: damaged"):
        make(tmp_path, folder, FakeSource())


def test_progress_is_told_on_standard_error(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_or_wait(StoreRequest(FakeSource(), GLUE["mrpc"], folder, 32, tmp_path))
    assert "prepare train: 50/50 rows (100%)" in capsys.readouterr().err


def test_waiters_say_for_whom(tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    request = StoreRequest(FakeSource(), GLUE["mrpc"], folder, 32, tmp_path)
    (tmp_path / f"{request.fingerprint[:16]}.lease-1").write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    with caplog.at_level(logging.INFO, "ftsys"):
        make_or_wait(request, lambda *_: None, LeaseTimes(stale=0.3, poll=0.02))
    assert "waiting for elsewhere:7 to prepare" in caplog.text


def test_a_folder_with_the_stores_name_that_is_no_store_is_told(tmp_path: Path, folder: Path) -> None:
    """Left by a clean-up by age, for example; everybody would make the store again and again."""
    store, read = make(tmp_path, folder, FakeSource()), tmp_path / "read"
    (store.path / "index.json").unlink()
    with pytest.raises(DataError, match=r"it is no complete store, index\.json is missing\. Remove it"):
        make(tmp_path, folder, FakeSource(log=read))
    shutil.rmtree(store.path)
    store.path.touch()
    with pytest.raises(DataError, match="it is no complete store"):
        make(tmp_path, folder, FakeSource(log=read))
    assert not read.exists(), "it is told before the work"
    store.path.unlink()
    store.path.mkdir()
    assert make(tmp_path, folder, FakeSource()).path == store.path, "an empty folder is in nobody's way"
