"""Scores standard input: a stream that differs from the one that was begun is never mixed with it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ftsys.cli import main
from tests.end_to_end.score_project import WINDOW, make_score_project

Score = Callable[..., int]
WORDS = ("model", "-", "--format", "csv", "--output", "o.csv", "--columns", "id", "--precision", "fp32")


@pytest.fixture
def score(tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Score:
    """Run `ftsys predict` with a text as standard input; returns its exit status."""
    from ftsys.score.windows import ROWS

    make_score_project(tmp_path, minilm_folder, 200)
    monkeypatch.setitem(ROWS, "cpu", WINDOW)
    monkeypatch.chdir(tmp_path)

    def run(text: str, *words: str) -> int:
        Path("stream.csv").write_text(text)
        with Path("stream.csv").open() as stream, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", stream)
            return main(["predict", *WORDS, *words])

    return run


def test_another_stream_is_refused_and_overwrite_begins_anew(score: Score, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path("rows.csv").read_text()
    other = whole.replace("\n100,", "\nhundred,")
    broken = f"{whole}7,only one\n"
    assert score(broken) == 2
    assert len(list(Path("o.csv.parts").glob("*[0-9]"))) == 3
    capsys.readouterr()
    assert score(other) == 2
    said = "standard input, line 66: from this row on, the input is another one than that which has begun 'o.csv.parts'"
    assert said in capsys.readouterr().err
    assert score(other, "--overwrite") == 0
    assert "\nhundred," in Path("o.csv").read_text()


def test_the_same_stream_goes_on(score: Score) -> None:
    whole = Path("rows.csv").read_text()
    assert score(f"{whole}7,only one\n") == 2
    part = next(path for path in Path("o.csv.parts").iterdir() if path.name.endswith("00000001"))
    part.write_bytes(b"from the first start\n")
    assert score(f"{whole}7,now,corrected\n") == 0
    assert "from the first start" in Path("o.csv").read_text()


def test_another_quoting_is_another_command(score: Score, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(f"{Path('rows.csv').read_text()}7,only one\n") == 2
    assert score(Path("rows.csv").read_text(), "--quoting", "none") == 2
    assert "holds the begun output of another command" in capsys.readouterr().err


def test_quotation_marks_in_a_tsv_stream_ask_for_the_quoting(score: Score, capsys: pytest.CaptureFixture[str]) -> None:
    """A stream cannot be read twice, as a file is, to find out whether its fields are quoted."""
    rows = 'id\tfirst\tsecond\n1\tA dog.\tA cat.\n2\t"Yes," he said.\tNo.\n'
    asked = ("--format", "tsv", "--text", "first", "second")
    assert score(rows, *asked) == 2
    said = "standard input, line 3: a field begins with a quotation mark. A stream cannot be looked through beforehand"
    assert said in capsys.readouterr().err
    assert score(rows, *asked, "--quoting", "none", "--overwrite") == 0
    assert score(rows.replace('"', ""), *asked, "--overwrite") == 0
    assert len(Path("o.csv").read_text().splitlines()) == 3
    assert score('"id"\tfirst\tsecond\n', *asked, "--overwrite") == 2
    assert "standard input, line 1: a field begins with a quotation mark" in capsys.readouterr().err
