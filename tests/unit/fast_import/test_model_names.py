"""Tests the cache of the names that transformers' models define."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftsys.fast_import.model_names import Structure, names_from_cache

FOUND: Structure = {
    frozenset(): {"bert.configuration_bert": {"BertConfig"}},
    frozenset({"torch"}): {"bert.modeling": {"A", "B"}},
}


class Scan:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any]] = []

    def __call__(self, module_path: Any, prefix: str | None = None) -> Structure:
        self.asked.append((module_path, prefix))
        return FOUND


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, and an empty cache."""
    monkeypatch.setenv("FTSYS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "models" / "bert").mkdir(parents=True)
    return tmp_path / "models"


def test_the_folder_is_read_once(models: Path) -> None:
    scan = Scan()
    with_prefix = {
        frozenset(): {"models.bert.configuration_bert": {"BertConfig"}},
        frozenset({"torch"}): {"models.bert.modeling": {"A", "B"}},
    }
    for _ in range(2):  # as two processes, each of which asks in both ways
        assert names_from_cache(scan)(models, prefix="models") == with_prefix
        assert names_from_cache(scan)(str(models / "__init__.py")) == FOUND
    assert scan.asked == [(models, None)]


def test_a_changed_folder_is_read_again(models: Path) -> None:
    scan = Scan()
    names_from_cache(scan)(models)
    (models / "bert" / "modeling_new.py").write_text("")
    names_from_cache(scan)(models)
    (models / "electra").mkdir()
    names_from_cache(scan)(models)
    assert len(scan.asked) == 3


def test_one_model_is_read_as_ever(models: Path) -> None:
    scan = Scan()
    assert names_from_cache(scan)(str(models / "bert" / "__init__.py"), "p") is FOUND
    assert scan.asked == [(str(models / "bert" / "__init__.py"), "p")]


def _pipe(kept: Path) -> None:
    kept.unlink()
    os.mkfifo(kept)


def _device(kept: Path) -> None:
    kept.unlink()
    kept.symlink_to("/dev/zero")


OTHERS: dict[str, Callable[[Path], object]] = {
    "cut": lambda kept: kept.write_text("half a fi"),
    "no list": lambda kept: kept.write_text("7"),
    "an empty list": lambda kept: kept.write_text("[]"),
    "text in the place of a list": lambda kept: kept.write_text('[[[], {"bert.modeling": "AB"}]]'),
    "numbers": lambda kept: kept.write_text('[[[], {"bert.modeling": [7]}]]'),
    "deep": lambda kept: kept.write_text("[" * 100_000),
    "a pipe": _pipe,
    "a device": _device,
    "a giant file": lambda kept: os.truncate(kept, 4 << 30),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("leave", OTHERS.values(), ids=OTHERS)
def test_what_another_program_left_in_the_cache_is_replaced(models: Path, leave: Callable[[Path], object]) -> None:
    scan = Scan()
    names_from_cache(scan)(models)
    (kept,) = (models.parent / "cache").rglob("*.json")
    leave(kept)
    assert names_from_cache(scan)(models) == FOUND
    assert names_from_cache(scan)(models) == FOUND
    assert len(scan.asked) == 2


def test_no_place_for_a_cache(models: Path) -> None:
    scan = Scan()
    (models.parent / "cache").write_text("a file where the folder should be")
    assert names_from_cache(scan)(models) == FOUND
    assert names_from_cache(scan)(models) == FOUND
    assert len(scan.asked) == 2
