"""Tests that a tokenizer's template puts only tokens of its own vocabulary around a text."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftsys.data.tokenize.plain_bert import is_plain_bert
from ftsys.data.tokenize.tokenizer import load_tokenizer
from ftsys.errors import ConfigError

Edit = Callable[[dict[str, Any]], object]


def folder_with(place: Path, source: Path, edit: Edit) -> Path:
    """Copy a tokenizer, with a change of its tokenizer.json."""
    for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(source / name, place / name)
    parts = json.loads((source / "tokenizer.json").read_text())
    edit(parts)
    (place / "tokenizer.json").write_text(json.dumps(parts))
    return place


def template(ids: list[int]) -> Edit:
    return lambda parts: [special.update(ids=ids) for special in parts["post_processor"]["special_tokens"].values()]


def processing(number: int) -> Edit:
    made = {"type": "BertProcessing", "sep": ["[SEP]", number], "cls": ["[CLS]", 101]}
    return lambda parts: parts.update(post_processor=made)


EDITS = {
    "another token": template([5]),
    "no token of the vocabulary": template([40_000]),
    "no token": template([]),
    "many tokens": template([102] * 1000),
    "the other form": processing(40_000),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_template_with_other_ids_is_left_to_transformers(tmp_path: Path, minilm_folder: Path, edit: Edit) -> None:
    folder = folder_with(tmp_path, minilm_folder, edit)
    assert is_plain_bert(minilm_folder)
    assert not is_plain_bert(folder)
    tokenizer = load_tokenizer(folder, 32)
    tokens = tokenizer.flatten(tokenizer.tokenize(["a"], ["b"])).tokens.tolist()
    assert tokens == [101, 1037, 102, 1038, 102], "transformers takes the ids of the vocabulary"


def test_a_template_with_the_vocabularys_ids_is_taken(tmp_path: Path, minilm_folder: Path) -> None:
    assert is_plain_bert(folder_with(tmp_path, minilm_folder, processing(102)))


@pytest.mark.parametrize(
    ("edit", "said"),
    [(EDITS["no token of the vocabulary"], "the token id 40000"), (EDITS["many tokens"], "[0-9]{4} tokens")],
)
def test_a_template_that_is_used_is_checked(
    tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, said: str
) -> None:
    monkeypatch.setattr("ftsys.data.tokenize.tokenizer.is_plain_bert", lambda folder: True)
    folder = folder_with(tmp_path, minilm_folder, edit)
    with pytest.raises(ConfigError, match=rf"gives {said} for one letter.*vocabulary has 30522 tokens"):
        load_tokenizer(folder, 32)
