"""Tests rows without a token, of a tokenizer that adds none of its own: they are refused, or skipped and listed."""

import json
from pathlib import Path

import pytest

from ftsys.cli import main
from ftsys.errors import DataError
from ftsys.score.classifier import Classifier
from tests.parity.score.tiny_classifiers import save_classifier


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny SmolLM3 whose tokenizer adds no token to a text."""
    save_classifier(tmp_path / "model", "smollm3")
    path = tmp_path / "model/tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    return tmp_path / "model"


def test_a_row_without_tokens_is_refused(model: Path) -> None:
    ours = Classifier(model)
    assert ours.layout == "packed"
    for rows in (["the cat", "", "a dog"], [("the", "cat"), ("", "")]):
        with pytest.raises(DataError, match=r"the rows, row 2: its text is empty and the tokenizer adds no token"):
            ours.predict(rows)


def test_rows_of_a_file_without_tokens(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ftsys.score.windows import ROWS

    monkeypatch.setitem(ROWS, "cpu", 3)
    monkeypatch.chdir(model.parent)
    texts = ["the cat", "", "a dog", "", "", "", None, "a", "", "hen"]
    Path("x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = ["predict", "model", "x.jsonl", "--output", "o.jsonl", "--columns", "text", "--precision", "fp32"]
    assert main(words) == 2
    assert "x.jsonl, line 2: its text is empty and the tokenizer adds no token" in capsys.readouterr().err
    assert main([*words, "--on-error", "skip"]) == 0
    rows, skipped = ([json.loads(line) for line in Path(name).read_text().splitlines()] for name in
                     ("o.jsonl", "o.jsonl.skipped.jsonl"))  # fmt: skip
    assert [row["text"] for row in rows] == ["the cat", "a dog", "a", "hen"]
    assert [row["line"] for row in skipped] == [2, 4, 5, 6, 7, 9]
    alone = Classifier(model).predict([row["text"] for row in rows]).scores
    assert [row["score_LABEL_0"] for row in rows] == pytest.approx(alone[:, 0], abs=1e-5)
