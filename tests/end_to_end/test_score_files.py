"""Scores files with whole processes: kills, ranks, memory; and in this process everything that a user may get wrong."""

import json
import random
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftsys.cli import main
from tests.end_to_end.score_project import WINDOW, kill_once, make_score_project, scored, write_rows

LONG = [pytest.mark.long, pytest.mark.timeout(7200)]
Predict = Callable[..., int]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A tiny classifier and a file of 1,000 pairs."""
    return make_score_project(tmp_path_factory.mktemp("score"), minilm_folder, 1000)


@pytest.fixture
def folder(project: Path, tmp_path: Path) -> Path:
    """A folder of the test's own, with the same model and rows."""
    for name in ("model", "rows.csv"):
        (tmp_path / name).symlink_to(project / name)
    return tmp_path


@pytest.fixture
def predict(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Run `ftsys predict` in this process, with windows of few rows; returns its exit status."""
    from ftsys.score.windows import ROWS

    monkeypatch.setitem(ROWS, "cpu", WINDOW)
    monkeypatch.chdir(folder)
    return lambda *words: main(["predict", *words, "--precision", "fp32"])


@pytest.mark.parametrize(("rows", "kills", "window"), [(1000, 2, WINDOW), pytest.param(200_000, 20, 4096, marks=LONG)])
def test_killed_scorings_end_with_the_same_bytes(folder: Path, rows: int, kills: int, window: int) -> None:
    if rows != 1000:
        (folder / "rows.csv").unlink()
        write_rows(folder / "rows.csv", rows)
    expected = scored(folder, window=window)
    assert expected.count(b"\n") == rows + 1
    (folder / "out.csv").unlink()
    draw, done = random.Random(1), 0
    while done < kills:
        if kill_once(folder, draw, -(-rows // window), window):
            done += 1
        else:
            (folder / "out.csv").unlink()  # it had ended before the signal
    assert scored(folder, window=window) == expected
    assert not (folder / "out.csv.parts").exists()


def test_ranks_write_the_same_bytes(folder: Path) -> None:
    expected = scored(folder)
    for ranks in (2, 3):
        assert scored(folder, ranks, ["--overwrite"]) == expected, f"{ranks} ranks"


def test_a_broken_row_ends_all_ranks_with_its_line(folder: Path) -> None:
    rows = (folder / "rows.csv").read_text()
    (folder / "rows.csv").unlink()
    (folder / "rows.csv").write_text(f"{rows}7,only one\n")
    from tests.end_to_end.score_project import start_scoring

    attempt = start_scoring(folder, 2)
    assert attempt.statuses() == [2, 2]
    assert attempt.log().count("error: rows.csv, line 1002: 2 fields instead of 3") == 1


def objects(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_that_are_skipped_are_listed_and_the_rest_is_scored(
    predict: Predict, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"text": f"row {number}", "id": number}) for number in range(200)]
    lines[70], lines[199] = "{", json.dumps({"text": None})
    (folder / "x.jsonl").write_text("\n".join(lines))
    words = ("model", "x.jsonl", "--output", "o.jsonl", "--columns", "id")
    assert predict(*words) == 2
    assert "x.jsonl, line 71: no JSON object" in capsys.readouterr().err
    assert predict(*words, "--on-error", "skip") == 0, "the windows before the broken row are used again"
    assert [row["id"] for row in objects(folder / "o.jsonl")] == [*range(70), *range(71, 199)]
    assert set(objects(folder / "o.jsonl")[0]) == {"id", "label", "score_no", "score_yes"}
    assert [row["line"] for row in objects(folder / "o.jsonl.skipped.jsonl")] == [71, 200]
    assert "o.jsonl.skipped.jsonl: 2 rows were skipped" in capsys.readouterr().out


def test_every_format_in_and_out_has_the_same_rows(predict: Predict, folder: Path) -> None:
    import datasets
    import pandas as pd

    table = pd.read_csv(folder / "rows.csv").head(100)
    table.to_csv("t.tsv", sep="\t", index=False)
    table.to_json("t.jsonl", orient="records", lines=True)
    table.to_json("t.json", orient="records")
    table.to_parquet("t.parquet")
    datasets.DatasetDict({"dev": datasets.Dataset.from_pandas(table)}).save_to_disk("t")
    found = []
    for name, words in {"t.tsv": (), "t.jsonl": (), "t.json": (), "t.parquet": (), "t": ("--split", "dev")}.items():
        output = f"out-{name}.parquet"
        assert predict("model", name, "--output", output, "--columns", "id", *words) == 0
        found.append(pd.read_parquet(output).astype({"id": int}))
    assert found[0]["id"].tolist() == list(range(100))
    assert all(each.equals(found[0]) for each in found)
    assert predict("model", "t.parquet", "t.tsv", "--output", "two.csv", "--top-k", "1", "--threshold", "0.3") == 0
    two = pd.read_csv("two.csv")
    assert list(two) == ["label", "label_1", "score_1"]
    assert two["label"].tolist() == ["yes" if yes >= 0.3 else "no" for yes in found[0]["score_yes"]] * 2


def test_standard_input_is_scored_as_a_stream(predict: Predict, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert predict("model", "rows.csv", "--output", "file.csv") == 0
    with (folder / "rows.csv").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert predict("model", "-", "--format", "csv", "--output", "stream.csv") == 0
    assert (folder / "stream.csv").read_bytes() == (folder / "file.csv").read_bytes()


WRONG: dict[str, tuple[Sequence[str], str]] = {
    "no model": (("nowhere/at-all/x", "rows.csv"), "there is no such folder"),
    "no model in the folder": ((".", "rows.csv"), "neither a model (config.json) nor a run"),
    "no file": (("model", "none.csv"), "none.csv: no such file"),
    "no column": (("model", "rows.csv", "--text", "sentence"), "no column 'sentence'"),
    "no carried column": (("model", "rows.csv", "--columns", "ids"), "Did you mean 'id'?"),
    "three texts": (("model", "rows.csv", "--text", "a", "b", "c"), "--text names 3 columns"),
    "a header with a column twice": (("model", "twice.csv", "--text", "a"), "column 'a' is there more than once"),
    "a quote never closed": (
        ("model", "quote.csv"),
        "quote.csv, line 3: a quotation mark that is opened there is never",
    ),
    "an ending of the output": (("model", "rows.csv", "--output", "o.txt"), "--output 'o.txt' ends in '.txt'"),
    "an output that exists": (("model", "rows.csv", "--output", "there.csv"), "output 'there.csv' exists"),
    "a threshold of a regression": (("number", "rows.csv", "--threshold", "0.5"), "needs classes"),
    "classes of a regression": (("number", "rows.csv", "--top-k", "1"), "--top-k needs classes"),
    "no tokens": (("model", "rows.csv", "--batch-tokens", "0"), "--batch-tokens 0 is not a number of tokens"),
    "the input as output": (
        ("model", "there.csv", "--output", "./there.csv", "--overwrite"),
        "--output 'there.csv' is the input 'there.csv'",
    ),
    "an output in an input": (("model", "number", "--output", "number/o.csv"), "lies in the input 'number'"),
    "an output that is a link": (("model", "there.csv", "--output", "rows.csv", "--overwrite"), "is a link"),
    "a split of a file": (("model", "rows.csv", "--split", "test"), "--split test: only a folder"),
    "a format of a folder": (("model", "number", "--format", "csv"), "--format csv: a folder is read"),
    "quotes without a table": (("model", "x.jsonl", "--quoting", "none"), "--quoting none: no input is a table"),
    "standard input twice": (("model", "-", "-", "--format", "csv"), "name it once"),
    "a GPU that is not there": (("model", "rows.csv", "--device", "cuda:9"), "device 'cuda:9' is not available"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_gives_one_line_and_status_2(
    name: str, predict: Predict, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, said = WRONG[name]
    (folder / "twice.csv").write_text("a,a\nx,y\n")
    (folder / "quote.csv").write_text('text\nx\n"y\nz\n')
    (folder / "there.csv").write_text("mine")
    (folder / "x.jsonl").write_text('{"text": "x"}\n')
    (folder / "number").mkdir()
    for path in (folder / "model").iterdir():
        (folder / "number" / path.name).symlink_to(path)
    (folder / "number/config.json").unlink()
    config = json.loads((folder / "model/config.json").read_text())
    config |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": "regression"}
    (folder / "number/config.json").write_text(json.dumps(config))
    assert predict(*words, *([] if "--output" in words else ["--output", "o.csv"])) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (folder / "o.csv").exists()
    assert (folder / "there.csv").read_text() == "mine"


@pytest.mark.parametrize("size", [100, 6000])
def test_a_full_disk_says_so_and_the_same_command_goes_on(
    size: int, predict: Predict, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files may have `size` bytes: too little for the folder's first file, or for a window."""
    words = ("model", "rows.csv", "--output", "o.csv", "--columns", "sentence1", "sentence2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        assert predict(*words) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the file grew too large. Free some space and start again" in capsys.readouterr().err
    assert predict(*words) == 0
    assert len((folder / "o.csv").read_text().splitlines()) == 1001


@pytest.mark.parametrize("rows", [5_000, pytest.param(1_000_000, marks=LONG)])
def test_memory_does_not_grow_with_the_rows(
    rows: int, predict: Predict, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line through the resident memory after each window, from the second half on, rises by few bytes a row."""
    import numpy as np
    import psutil

    from ftsys.score.parts import Parts
    from ftsys.score.windows import ROWS

    window, seen, write = max(WINDOW, rows // 1000), [], Parts.write

    def written(parts: Parts, *values: Any) -> None:
        write(parts, *values)
        seen.append(psutil.Process().memory_info().rss)

    monkeypatch.setitem(ROWS, "cpu", window)
    monkeypatch.setattr(Parts, "write", written)
    write_rows(folder / "many.csv", rows)
    assert predict("model", "many.csv", "--output", "o.csv") == 0
    late = seen[len(seen) // 2 :]
    assert len(late) > 30
    slope = np.polyfit(np.arange(len(late)) * window, late, 1)[0]
    assert slope * rows < 16 << 20, f"{slope:.1f} bytes a row"
