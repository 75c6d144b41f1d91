"""The store gives back what was written, across record batches, to NumPy, to a stock collator and to `datasets`."""

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ftsys.data.store.split_writer as split_writer
import ftsys.data.store.writer as store_writer
from ftsys.bench.data import sparse_store
from ftsys.data.store.index import TokenizerFacts
from ftsys.data.store.reader import Store
from ftsys.data.store.split_writer import rows_per_batch
from ftsys.data.store.verify import verify_store
from ftsys.data.store.writer import StoreWriter
from ftsys.errors import DataError, StorageError

Rows = list[tuple[list[int], int, Any]]
FACTS = TokenizerFacts("f" * 64, 0, 30522, True, 16)


def write(root: Path, splits: dict[str, Rows], facts: TokenizerFacts = FACTS, label_type: str = "int64") -> Path:
    """A store of (token ids, first length, label) rows, appended in two chunks."""
    with StoreWriter(root, "0123456789abcdef" * 4, facts, label_type, "t") as writer:
        for name, rows in splits.items():
            out = writer.begin_split(name)
            for part in (rows[: len(rows) // 3], rows[len(rows) // 3 :]):
                tokens = np.array([token for ids, _, _ in part for token in ids], np.uint32)
                lengths = np.array([len(ids) for ids, _, _ in part], np.int32)
                out.append(tokens, lengths, np.array([row[1] for row in part]), np.array([row[2] for row in part]))
            writer.end_split(name)
        return writer.publish("s" * 64)


def some_rows(count: int, seed: int = 0, vocab: int = 30522) -> Rows:
    generator = np.random.default_rng(seed)
    rows: Rows = []
    for row in range(count):
        ids = generator.integers(0, vocab, generator.integers(1, 17)).tolist()
        rows.append((ids, int(generator.integers(1, len(ids) + 1)), row % 3))
    return rows


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record batches of 8 rows, so that a few rows span many of them."""
    monkeypatch.setattr(split_writer, "MAX_ROWS_PER_BATCH", 8)


def check_gather(store: Store, name: str, rows: Rows, wanted: list[int]) -> None:
    got = store.splits[name].gather(wanted)
    expected = [rows[row] for row in wanted]
    assert got.tokens.tolist() == [token for ids, _, _ in expected for token in ids]
    assert got.lengths.tolist() == [len(ids) for ids, _, _ in expected]
    assert got.first_lengths.tolist() == [first for _, first, _ in expected]
    assert got.labels.tolist() == [label for _, _, label in expected]
    assert got.example_ids.tolist() == wanted
    assert got.positions.tolist() == [place for ids, _, _ in expected for place in range(len(ids))]
    assert got.cu_seqlens.tolist() == np.cumsum([0, *(len(ids) for ids, _, _ in expected)]).tolist()


@pytest.mark.usefixtures("small_batches")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), count=st.integers(1, 40), vocab=st.sampled_from([30522, 70_000]))
def test_gather_gives_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, vocab: int
) -> None:
    rows = some_rows(count, seed=data.draw(st.integers(0, 1000)), vocab=vocab)
    facts = TokenizerFacts("f" * 64, 0, vocab, True, 16)
    store = Store.open(write(tmp_path_factory.mktemp("store"), {"train": rows}, facts))
    check_gather(store, "train", rows, data.draw(st.lists(st.integers(0, count - 1), max_size=50)))
    split = store.splits["train"]
    assert split.lengths.tolist() == [len(ids) for ids, _, _ in rows]
    assert split.labels.tolist() == [label for _, _, label in rows]
    assert split.gather([0]).tokens.dtype == (np.uint16 if vocab == 30522 else np.uint32)


@pytest.mark.usefixtures("small_batches")
def test_index_counts_rows_tokens_and_lengths(tmp_path: Path) -> None:
    rows = some_rows(21)
    store = Store.open(write(tmp_path, {"validation": rows, "train": rows[:4]}))
    assert list(store.splits) == ["validation", "train"]
    split = store.splits["validation"]
    assert (len(split), split.rows, split.labelled) == (21, 21, True)
    assert store.index.splits["validation"].batches.rows == [8, 8, 5]
    assert split.total_tokens == sum(len(ids) for ids, _, _ in rows)
    assert split.length_histogram.tolist() == np.bincount([len(row[0]) for row in rows], minlength=17).tolist()


@pytest.mark.usefixtures("small_batches")
def test_datasets_opens_the_same_rows(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = some_rows(21)
    path = write(tmp_path, {"train": rows})
    dataset = Dataset.from_file(str(path / "train.arrow"))
    assert dataset.column_names == ["example_id", "input_ids", "first_length", "label"]
    assert [(row["input_ids"], row["first_length"], row["label"]) for row in dataset] == rows
    assert dataset[20]["example_id"] == 20


def test_one_example_is_what_a_stock_collator_wants(tmp_path: Path) -> None:
    split = Store.open(write(tmp_path, {"train": [([7, 8, 9], 2, 1), ([5], 1, 0)]})).splits["train"]
    assert split[0] == {"input_ids": [7, 8, 9], "attention_mask": [1, 1, 1], "token_type_ids": [0, 0, 1], "labels": 1}
    assert split[-1]["input_ids"] == [5]


@pytest.mark.usefixtures("small_batches")
def test_a_row_without_tokens_is_refused_with_its_number(tmp_path: Path) -> None:
    rows = [*some_rows(20), ([], 0, 1), *some_rows(2)]
    with pytest.raises(DataError, match=r"split 'train', row 21: its text is empty"):
        write(tmp_path, {"train": rows})


@pytest.mark.parametrize("rows", [[-1], [3], [0, 2**40], [0, -(2**62)]])
def test_rows_out_of_range_are_refused(tmp_path: Path, rows: list[int]) -> None:
    split = Store.open(write(tmp_path, {"train": some_rows(3)})).splits["train"]
    with pytest.raises(IndexError, match="0 to 2"):
        split.gather(rows)


def test_an_empty_gather_and_an_empty_split(tmp_path: Path) -> None:
    store = Store.open(write(tmp_path, {"train": some_rows(3), "test": []}))
    for name in store.splits:
        got = store.splits[name].gather(np.empty(0, np.int64))
        assert (got.tokens.size, got.cu_seqlens.tolist()) == (0, [0])
    assert (store.splits["test"].lengths.size, store.splits["test"].labels.size) == (0, 0)


def test_a_split_travels_to_a_worker(tmp_path: Path) -> None:
    rows = some_rows(5)
    split = Store.open(write(tmp_path, {"train": rows})).splits["train"]
    again = pickle.loads(pickle.dumps(split))
    assert again.gather([4, 0]).tokens.tolist() == [*rows[4][0], *rows[0][0]]


def test_the_views_cannot_write(tmp_path: Path) -> None:
    split = Store.open(write(tmp_path, {"train": some_rows(5)})).splits["train"]
    for view in (split.labels, split.lengths):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0


def test_opening_does_not_read_the_rows(tmp_path: Path) -> None:
    sparse_store(tmp_path / "sparse", 100_000_000)
    split = Store.open(tmp_path / "sparse").splits["train"]
    assert len(split) == 100_000_000
    assert split.gather([99_999_999, 0]).lengths.tolist() == [0, 0]
    assert (tmp_path / "sparse" / "index.json").stat().st_size < 200_000


def test_partly_labelled_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 2 rows have no label"):
        write(tmp_path, {"train": [([1], 1, 0), ([2], 1, -1)]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_an_interrupted_writer_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with StoreWriter(tmp_path, "a" * 64, FACTS, "int64", "t") as writer:
            out = writer.begin_split("train")
            out.append(np.array([1]), np.array([1], np.int32), np.array([1]), np.array([0]))
            raise error("stop")

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_the_second_of_two_writers_keeps_the_first_ones_store(tmp_path: Path) -> None:
    first = write(tmp_path, {"train": some_rows(3)})
    assert write(tmp_path, {"train": some_rows(4)}) == first
    assert len(Store.open(first).splits["train"]) == 3
    assert list(tmp_path.iterdir()) == [first]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    owner: object = store_writer.os if step == "fsync" else Path
    monkeypatch.setattr(owner, step, full)
    with pytest.raises(StorageError, match="disk is full"):
        write(tmp_path, {"train": some_rows(3)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("max_length", [8, 128, 512, 8192, 65_535])
def test_record_batches_are_bounded_powers_of_two(max_length: int) -> None:
    rows = rows_per_batch(max_length)
    assert rows & (rows - 1) == 0
    assert rows * max_length < 2**31
    assert rows <= 65_536


@pytest.mark.parametrize(("vocab", "name"), [(2, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_token_type_is_the_narrowest(vocab: int, name: str) -> None:
    assert replace(FACTS, vocab_size=vocab).token_type.name == name


def changed(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": some_rows(60), "test": some_rows(20, seed=1)})
    assert verify_store(path) == []
    generator, found, positions = np.random.default_rng(0), 0, 0
    for file in sorted(path.iterdir()):
        for place in generator.choice(file.stat().st_size, 70, replace=False):
            flip = int(generator.integers(1, 256))

            def change(content: bytearray, place: int = int(place), flip: int = flip) -> None:
                content[place] ^= flip

            changed(file, change)
            positions += 1
            report = verify_store(path)
            found += len(report) == 1 and file.name in report[0]
            with pytest.raises(DataError, match=file.name):
                Store.open(path)
            changed(file, change)
    assert (found, positions) == (210, 210)
    assert verify_store(path) == []


def test_a_truncated_or_missing_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": some_rows(60), "test": some_rows(20)})
    changed(path / "test.arrow", lambda content: content.__delitem__(slice(-8, None)))
    with pytest.raises(DataError, match=r"test\.arrow.*bytes where"):
        Store.open(path, verify=False)
    (path / "train.arrow").unlink()
    assert [line.partition(": ")[0] for line in verify_store(path)] == [
        str(path / "train.arrow"),
        str(path / "test.arrow"),
    ]


def test_a_store_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"train": some_rows(3)})
    monkeypatch.setattr("ftsys.data.store.index.STORE_FORMAT", 99)
    with pytest.raises(DataError, match="store format 1, this version reads 99"):
        Store.open(path)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("value", [2**31 - 1, -(2**31), 10**6, -1])
def test_damaged_offsets_of_a_large_store_are_refused(tmp_path: Path, value: int) -> None:
    """A store above VERIFY_AT_OPEN bytes is not hashed when it is opened."""
    path = write(tmp_path, {"train": some_rows(20)})
    table = Store.open(path).index.splits["train"].batches

    def damage(data: bytearray) -> None:
        at = table.list_offsets[1] + 4 * 3  # the end of row 10, and the start of row 11
        data[at : at + 4] = np.int32(value).tobytes()

    changed(path / "train.arrow", damage)
    split = Store.open(path, verify=False).splits["train"]
    for rows in ([10], [11], [1, 10, 5], list(range(20))):
        with pytest.raises(DataError, match=r"train.arrow: damaged, the tokens of row 1[01] lie outside"):
            split.gather(rows)
    with pytest.raises(DataError, match=r"the tokens of row 1[01] lie outside"):
        _ = split.lengths
    assert split.gather([9, 12]).lengths.size == 2


@pytest.mark.usefixtures("small_batches")
def test_offsets_that_are_shifted_out_of_the_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": some_rows(20)})
    table = Store.open(path).index.splits["train"].batches

    def damage(data: bytearray) -> None:
        at = table.list_offsets[1]
        offsets = np.frombuffer(data, np.int32, 9, at) + 10**8  # every length stays right
        data[at : at + 36] = offsets.tobytes()

    changed(path / "train.arrow", damage)
    split = Store.open(path, verify=False).splits["train"]
    with pytest.raises(DataError, match=r"train.arrow: damaged, the tokens of row 9 lie outside"):
        split.gather([0, 9, 1])


@pytest.mark.parametrize("use", ["gather", "lengths", "labels"])
def test_a_file_that_becomes_shorter_while_it_is_mapped_is_an_error_and_no_crash(tmp_path: Path, use: str) -> None:
    path = write(tmp_path, {"train": some_rows(5000)})
    split = Store.open(path).splits["train"]
    os.truncate(path / "train.arrow", 4096)
    with pytest.raises(DataError, match=r"train.arrow: damaged, it became shorter while it was in use"):
        _ = split.gather([4999]) if use == "gather" else getattr(split, use)
