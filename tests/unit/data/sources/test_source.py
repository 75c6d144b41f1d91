"""Text from files: the same rows whatever the format, and one clear error for each mistake."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftsys.data.sources import numbered_lines
from ftsys.data.sources.source import Source, open_source
from ftsys.errors import DataError
from ftsys.tasks import Task

PAIR = Task("pets", ("left", "right"), ("cat", "dog", "bird"), ("accuracy",))
SCORE = Task("score", ("text",), (), ("pearson",), regression=True, label_column="score")
ROWS = [("a", 'say "x"', "cat"), ("b, c", "d", "bird"), ("é", "", "dog")]


@dataclass(frozen=True)
class Data:
    """The part of the run file's [data] that sources read."""

    source: Any


def opened(source: Any, task: Task = PAIR) -> Source:
    return open_source(Data(source), task)


def read(source: Source, split: str = "train", rows_per_batch: int = 8192) -> tuple[list[str], list[str], list[float]]:
    """Whole columns of a split, and a check that batches follow one another."""
    first: list[str] = []
    second: list[str] = []
    labels: list[float] = []
    for batch in source.batches(split, rows_per_batch):
        assert batch.first_row == len(first)
        assert len(batch.first) == len(batch.labels) <= rows_per_batch
        first += batch.first
        second += batch.second or []
        labels += batch.labels.tolist()
    return first, second, labels


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("left", "right", "label"), *ROWS])


def write_tsv(path: Path) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in [("left", "right", "label"), *ROWS]))


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"left": a, "right": b, "label": c, "more": 1}) + "\n" for a, b, c in ROWS))


def write_parquet(path: Path) -> None:
    left, right, label = map(list, zip(*ROWS, strict=True))
    pq.write_table(pa.table({"label": label, "left": left, "right": right}), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "csv": write_csv,
    "tsv": write_tsv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("rows_per_batch", [1, 2, 8192])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str, rows_per_batch: int) -> None:
    path = tmp_path / f"train.{kind}"
    WRITERS[kind](path)
    source = opened({"train": path})
    assert read(source, rows_per_batch=rows_per_batch) == (["a", "b, c", "é"], ['say "x"', "d", ""], [0, 2, 1])
    assert source.splits == ("train",)
    assert source.rows("train") == (None if kind == "csv" else 3)
    assert not source.synthetic
    assert next(source.batches("train")).labels.dtype == np.int64


def test_splits_are_in_the_tasks_order_and_a_test_split_may_lack_labels(tmp_path: Path) -> None:
    for name, lines in (("a", "left\tright\nx\ty\n"), ("b", "left\tright\tlabel\nx\ty\tdog\n")):
        (tmp_path / f"{name}.tsv").write_text(lines)
    source = opened({"test": tmp_path / "a.tsv", "train": tmp_path / "b.tsv"})
    assert source.splits == ("train", "test")
    assert read(source, "test") == (["x"], ["y"], [-1])


@pytest.mark.parametrize("label", ["-1", "", "-1.0"])
def test_minus_one_and_empty_mean_unlabelled_in_a_test_split(tmp_path: Path, label: str) -> None:
    (tmp_path / "t.csv").write_text(f"left,right,label\nx,y,{label}\n")
    assert read(opened({"test": tmp_path / "t.csv"}), "test")[2] == [-1]
    with pytest.raises(DataError, match=r"t\.csv, line 2: the label is missing"):
        opened({"train": tmp_path / "t.csv"})


def test_labels_may_be_names_ids_or_ids_as_pandas_writes_them(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("left\tright\tlabel\n" + "".join(f"x\ty\t{each}\n" for each in ("dog", "1", "1.0")))
    assert read(opened({"train": tmp_path / "t.tsv"}))[2] == [1, 1, 1]


def test_a_class_named_by_a_number_comes_before_the_id(tmp_path: Path) -> None:
    stars = Task("stars", ("text",), ("1", "2", "3"), ("accuracy",))
    (tmp_path / "t.jsonl").write_text('{"text": "x", "label": 1}\n{"text": "x", "label": "3"}\n')
    assert read(opened({"train": tmp_path / "t.jsonl"}, stars))[2] == [0, 2]


def test_scores_are_float64_and_unlabelled_scores_nan(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,score\nx,2.5\ny,-1\n")
    (tmp_path / "b.csv").write_text("text,score\nx,\n")
    source = opened({"train": tmp_path / "a.csv", "test": tmp_path / "b.csv"}, SCORE)
    assert read(source)[2] == [2.5, -1.0]
    assert np.isnan(next(source.batches("test")).labels).all()
    assert next(source.batches("train")).labels.dtype == np.float64
    assert next(source.batches("train")).second is None


@pytest.mark.parametrize("score", ["nan", "inf", "high", "1" * 400])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_score_that_is_no_finite_number_is_refused(tmp_path: Path, score: str, split: str) -> None:
    (tmp_path / "a.csv").write_text(f"text,score\nx,1\ny,{score}\n")
    source = opened({split: tmp_path / "a.csv"}, SCORE)
    with pytest.raises(DataError, match=rf"a\.csv, line 3: score '{score}' is not a finite number"):
        read(source, split)


def test_a_missing_score_is_refused_in_training(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "score": null}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: the score is missing"):
        opened({"train": tmp_path / "a.jsonl"}, SCORE)


@pytest.mark.parametrize("label", ["3", "-2", "cats", "1.5", "-1", "nan"])
def test_a_label_out_of_range_is_named_with_its_line(tmp_path: Path, label: str) -> None:
    (tmp_path / "t.tsv").write_text(f"left\tright\tlabel\nx\ty\t0\nx\ty\t{label}\n")
    source = opened({"train": tmp_path / "t.tsv"})
    with pytest.raises(DataError, match=rf"t\.tsv, line 3: .*'{label}'"):
        read(source)


def test_half_a_label_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("left\tright\tlabel\nx\ty\t0\nx\ty\t-1\n")
    source = opened({"test": tmp_path / "t.tsv"})
    with pytest.raises(DataError, match=r"line 3: the row has no label, but the rows before it have one"):
        read(source, "test", rows_per_batch=1)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_wrong_column_names_the_nearest(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"train.{kind}"
    WRITERS[kind](path)
    with pytest.raises(DataError, match=r"no column 'Rigth'; .*'left', .*Did you mean 'right'\?"):
        opened({"train": path}, Task("pets", ("left", "Rigth"), PAIR.labels, ("accuracy",)))


def test_a_missing_label_column_is_refused_in_training(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("left,right\nx,y\n")
    with pytest.raises(DataError, match="no column 'label'"):
        opened({"train": tmp_path / "t.csv"})


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("left,right,left,label\nx,y,z,0\n")
    with pytest.raises(DataError, match="column 'left' is there more than once"):
        opened({"train": tmp_path / "t.csv"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", r"t\.csv is empty"),
        ("t.parquet", b"", r"t\.parquet is empty"),
        ("t.csv", b"left,right,label\n", r"t\.csv has no rows"),
        ("t.tsv", b"left\tright\tlabel\n\n", r"t\.tsv has no rows"),
        ("t.tsv", b"\n\n", r"t\.tsv has no header line"),
        ("t.tsv", b"left\tright\tlabel\na\tb\n", r"t\.tsv, line 2: 2 fields instead of 3 \(it starts with 'a\\tb'\)"),
        ("t.csv", b'left,right,label\n"a\nb",c,0\na,b\n', r"t\.csv, line 4: 2 fields instead of 3"),
        ("t.csv", b'left,right,label\na,"b"c,0\n', r"t\.csv, line 2: broken CSV"),
        ("t.csv", b'left,right,label\na,b,0\n"a,b,0\nx,y,1\n', r"t\.csv, line 3: broken CSV"),
        ("t.tsv", b"left\tright\tlabel\na\tb\t0\n\nc\td\t0\n", r"t\.tsv, line 3: the line is blank"),
        ("t.csv", b"left,right,label\na,b,0\n\nc,d,0\n", r"t\.csv, line 3: the line is blank"),
        ("t.tsv", b"left\tright\tlabel\na\t\xff\t0\n", r"t\.tsv, line 2: not UTF-8 text"),
        ("t.csv", b"left,right,label\na,\xff,0\n", r"t\.csv, line 2: not UTF-8 text"),
        ("t.jsonl", b'{"left": "a"\n', r"t\.jsonl, line 1: not JSON"),
        ("t.jsonl", b"[1]\n", r"t\.jsonl, line 1: '\[1\]' is not a JSON object"),
        ("t.jsonl", b'{"left": 3, "right": "b", "label": 0}\n', r"t\.jsonl, line 1: column 'left' is 3, not text"),
        ("t.jsonl", b'{"left": "\\ud800", "right": "b", "label": 0}\n', r"line 1: half a surrogate pair"),
        (
            "t.jsonl",
            b'{"left": "a", "right": "b", "label": [0]}\n',
            r"line 1: label \[0\] is not a label of task 'pets'",
        ),
        ("t.parquet", b"PAR1 not really", r"t\.parquet: not a Parquet file"),
        ("t.txt", b"x", r"t\.txt: a file that ends in '\.txt' cannot be read.*\.jsonl"),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(opened({"train": tmp_path / name}))


def test_a_null_text_in_parquet_is_named_with_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"left": ["a", None], "right": ["b", "c"], "label": [0, 1]}), tmp_path / "t.parquet")
    source = opened({"train": tmp_path / "t.parquet"})
    with pytest.raises(DataError, match=r"t\.parquet, row 2: column 'left' is None, not text"):
        read(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"train": "nowhere.csv"}, r"nowhere\.csv: no such file"),
        ({"trian": "t.csv"}, r"the split 'trian'.*Did you mean 'train'"),
        ({}, "no split at all"),
        ("synthetik", r"'synthetik' is not a folder\. Did you mean 'synthetic'"),
        ("hub:/nowhere/glue", "'/nowhere/glue' cannot be loaded from the Hub or its cache"),
        (".", "a folder, which only GLUE's tasks have"),
        ("synthetic", "the synthetic paraphrase sample, and the task is 'pets'"),
    ],
)
def test_a_wrong_source_says_what_to_write(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(source)


def test_one_file_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("left,right,label\nx,y,0\n")
    with pytest.raises(DataError, match=r"is one file\. Name a file for each split"):
        opened(str(tmp_path / "t.csv"))


def test_an_unknown_split_names_the_nearest(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"no split 'trian'.*Did you mean 'train'"):
        next(opened({"train": tmp_path / "t.csv"}).batches("trian"))


def test_the_fingerprint_follows_bytes_columns_and_labels_but_not_the_place(tmp_path: Path) -> None:
    here, there, other = (tmp_path / name for name in ("t.csv", "u.csv", "v.csv"))
    write_csv(here)
    there.write_bytes(here.read_bytes())
    other.write_bytes(here.read_bytes().replace(b"b, c", b"b; c"))
    fingerprint = opened({"train": here}).fingerprint
    assert len(fingerprint) == 64
    assert opened({"train": there}).fingerprint == fingerprint
    changed = [
        opened({"train": other}).fingerprint,
        opened({"train": here}, Task("pets", ("right", "left"), PAIR.labels, ("accuracy",))).fingerprint,
        opened({"train": here}, Task("pets", PAIR.columns, ("cat", "bird", "dog"), ("accuracy",))).fingerprint,
        opened({"validation": here}).fingerprint,
    ]
    assert len({fingerprint, *changed}) == 5


def test_a_file_is_hashed_once_while_it_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "t.csv")
    first = opened({"train": tmp_path / "t.csv"}).fingerprint
    monkeypatch.setattr(numbered_lines.hashlib, "sha256", None)  # a second look at the bytes would fail
    assert numbered_lines.scan(tmp_path / "t.csv")[0] != first
    with (tmp_path / "t.csv").open("a") as stream:
        stream.write("x,y,cat\n")
    with pytest.raises(TypeError):
        numbered_lines.scan(tmp_path / "t.csv")
