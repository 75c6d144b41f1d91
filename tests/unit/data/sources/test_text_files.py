"""No character of a text is lost on its way from a file, whatever it is and whatever ends the lines."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftsys.data.sources.source import Source, open_source
from ftsys.tasks import Task

PAIR = Task("pets", ("left", "right"), ("cat", "dog", "bird"), ("accuracy",))
FIELD = st.text(st.characters(exclude_characters="\t\n\r", codec="utf-8"), max_size=12)
ANY = st.text(st.characters(codec="utf-8"), max_size=12)
FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Data:
    """The part of the run file's [data] that sources read."""

    source: Any
    quoting: str = "auto"


def opened(source: Any, quoting: str = "auto") -> Source:
    return open_source(Data(source, quoting), PAIR)


def read(source: Source, split: str = "train", rows_per_batch: int = 8192) -> tuple[list[str], list[str], list[float]]:
    batches = list(source.batches(split, rows_per_batch))
    first = [text for batch in batches for text in batch.first]
    second = [text for batch in batches for text in batch.second or []]
    return first, second, [label for batch in batches for label in batch.labels.tolist()]


@FAST
@given(
    rows=st.lists(st.tuples(FIELD, FIELD, st.sampled_from(PAIR.labels)), min_size=1, max_size=6),
    bom=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.sampled_from(["", "\n", "\n\n"]),
    rows_per_batch=st.integers(1, 4),
)
def test_tsv_keeps_every_character(
    tmp_path: Path, rows: list[tuple[str, str, str]], bom: bool, end: str, last: str, rows_per_batch: int
) -> None:
    lines = ["\t".join(row) for row in [("left", "right", "label"), *rows]]
    text = end.join(lines) + last.replace("\n", end)
    (tmp_path / "t.tsv").write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    source = opened({"train": tmp_path / "t.tsv"}, "none")
    first, second, labels = read(source, rows_per_batch=rows_per_batch)
    assert list(zip(first, second, (PAIR.labels[int(each)] for each in labels), strict=True)) == rows
    assert source.rows("train") == len(rows)


@FAST
@given(rows=st.lists(st.tuples(ANY, ANY), min_size=1, max_size=6), end=st.sampled_from(["\n", "\r\n"]))
def test_csv_keeps_every_character_that_quoting_can(tmp_path: Path, rows: list[tuple[str, str]], end: str) -> None:
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([("left", "right", "label"), *((*row, 1) for row in rows)])
    first, second, _ = read(opened({"train": tmp_path / "t.csv"}))
    assert list(zip(first, second, strict=True)) == rows


@FAST
@given(rows=st.lists(st.tuples(ANY, ANY), min_size=1, max_size=6), ascii_only=st.booleans())
def test_jsonl_keeps_every_character(tmp_path: Path, rows: list[tuple[str, str]], ascii_only: bool) -> None:
    lines = [json.dumps({"left": a, "right": b, "label": 0}, ensure_ascii=ascii_only) for a, b in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="")
    source = opened({"train": tmp_path / "t.jsonl"})
    first, second, _ = read(source)
    assert list(zip(first, second, strict=True)) == rows
    assert source.rows("train") == len(rows)
