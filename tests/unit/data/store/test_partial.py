"""Tests that a store whose making was stopped goes on from the saved rows, and is the same store byte for byte."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ftsys.data.store.split_writer as split_writer
from ftsys.data.store.index import TokenizerFacts
from ftsys.data.store.partial import SUFFIX, fullest, read_saved, saved_rows
from ftsys.data.store.writer import StoreWriter
from ftsys.errors import StorageError

FACTS = TokenizerFacts("f" * 64, 0, 30522, True, 16)
ROWS, STOPPED = 40, 29
SAVED = 24  # whole record batches of 8 rows
LABELS: dict[str, Callable[[int], Any]] = {
    "int64": lambda row: row % 3,
    "float64": lambda row: row / 7,
    "(3,)int8": lambda row: [row % 2, 1, 0],
}


class Stopped(BaseException):
    """As KeyboardInterrupt and SystemExit, no Exception."""


@pytest.fixture(autouse=True)
def every_batch_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", 8)
    monkeypatch.setattr(split_writer, "SAVE_EVERY", 1)


def write(root: Path, label_type: str, token: str, left: Path | None = None, stop: BaseException | None = None) -> Path:
    """Write a store, or raise `stop` after STOPPED rows of the second split."""
    with StoreWriter(root, "0123456789abcdef" * 4, FACTS, label_type, token, left) as writer:
        for split in ("train", "validation"):
            out = writer.begin_split(split)
            for row in range(out.rows, ROWS):
                if stop is not None and split == "validation" and row == STOPPED:
                    raise stop
                tokens = np.arange(1 + row % 5, dtype=np.uint32) + row
                lengths = np.array([tokens.size], np.int32)
                out.append(tokens, lengths, np.array([1]), np.array([LABELS[label_type](row)]))
            writer.end_split(split)
        return writer.publish("s" * 64)


def stopped(root: Path, label_type: str = "int64") -> Path:
    """Return the folder that a stopped writer leaves."""
    with pytest.raises(Stopped):
        write(root, label_type, "first", stop=Stopped())
    return root / "0123456789abcdef.tmp-first"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("label_type", LABELS)
def test_the_rest_is_written_to_the_same_bytes(tmp_path: Path, label_type: str) -> None:
    left = stopped(tmp_path / "b", label_type)
    assert saved_rows(left) == ROWS + SAVED
    assert sum(rows[1].size for rows in read_saved(left / "validation.arrow")) == SAVED
    whole = write(tmp_path / "a", label_type, "whole")
    assert content(write(tmp_path / "b", label_type, "second", left)) == content(whole)


def test_a_second_stop_saves_what_was_taken_over(tmp_path: Path) -> None:
    left = stopped(tmp_path)
    with pytest.raises(Stopped):
        write(tmp_path, "int64", "second", left, stop=Stopped())
    assert saved_rows(tmp_path / "0123456789abcdef.tmp-second") == ROWS + SAVED


def test_a_writer_whose_folder_was_removed_makes_no_store_of_the_rest(tmp_path: Path) -> None:
    """As whoever took over the lease of a stalled process did; the next note on saved rows makes the folder again."""

    def stalled() -> None:
        with StoreWriter(tmp_path, "0123456789abcdef" * 4, FACTS, "int64", "first") as writer:
            for split in ("train", "validation"):
                out = writer.begin_split(split)
                if split == "validation":
                    shutil.rmtree(tmp_path / "0123456789abcdef.tmp-first")
                out.append(np.arange(16), np.ones(16, np.int32), np.ones(16), np.zeros(16, np.int64))
                writer.end_split(split)
            assert [path.name for path in tmp_path.rglob("*.json")] == [f"validation.arrow{SUFFIX}"]
            writer.publish("s" * 64)

    with pytest.raises(StorageError, match=r"train\.arrow: was removed while the store was written\. Start again"):
        stalled()
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write(tmp_path, "int64", "first", stop=RuntimeError())
    assert list(tmp_path.iterdir()) == []


def flip(left: Path) -> None:
    bytes_ = bytearray((left / "validation.arrow").read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    (left / "validation.arrow").write_bytes(bytes_)


def cut(left: Path) -> None:
    with (left / "validation.arrow").open("r+b") as stream:
        stream.truncate(100)


def forge(**values: Any) -> Callable[[Path], None]:
    def change(left: Path) -> None:
        note = left / f"validation.arrow{SUFFIX}"
        note.write_text(json.dumps(json.loads(note.read_text()) | values))

    return change


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a changed byte": flip,
    "a file cut off": cut,
    "a missing file": lambda left: (left / "validation.arrow").unlink(),
    "a note cut off": lambda left: (left / f"validation.arrow{SUFFIX}").write_text('{"rows": 2'),
    "a note of another size": forge(size=1 << 40),
    "a note of no size": forge(size=0),
    "a note of a negative size": forge(size=-1),
    "a note of text": forge(rows="24"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_rows_are_not_taken_over(tmp_path: Path, damage: str) -> None:
    left = stopped(tmp_path / "b")
    DAMAGE[damage](left)
    assert list(read_saved(left / "validation.arrow")) == []
    assert content(write(tmp_path / "b", "int64", "second", left)) == content(write(tmp_path / "a", "int64", "whole"))


def test_what_follows_the_saved_rows_may_be_half_written(tmp_path: Path) -> None:
    left = stopped(tmp_path / "b")
    with (left / "validation.arrow").open("ab") as stream:
        stream.write(b"\xff" * 100)
    assert sum(rows[1].size for rows in read_saved(left / "validation.arrow")) == SAVED
    assert content(write(tmp_path / "b", "int64", "second", left)) == content(write(tmp_path / "a", "int64", "whole"))


def test_the_folder_with_the_most_rows_is_taken(tmp_path: Path) -> None:
    left, empty = stopped(tmp_path), tmp_path / "0123456789abcdef.tmp-other"
    empty.mkdir()
    assert fullest([empty, left]) == left
    assert fullest([empty]) is None
