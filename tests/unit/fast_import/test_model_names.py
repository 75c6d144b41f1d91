"""Tests the cache of the names that transformers' models define."""

import os
import tempfile
from collections.abc import Callable, Iterator
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
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a model, and an empty cache, where every user may enter, unlike pytest's own folder."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        monkeypatch.setenv("FTSYS_CACHE", f"{made}/cache")
        (Path(made) / "models" / "bert").mkdir(parents=True)
        yield Path(made) / "models"


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


PLANTED = '[[[], {"bert.modeling_bert": ["Nothing"]}]]'
NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")


def _of_another_user(kept: Path) -> None:
    os.chown(kept.parent, NOBODY, NOBODY)


def _open_to_all(kept: Path) -> None:
    kept.parent.chmod(0o777)


def _replaceable(kept: Path) -> None:
    kept.parent.parent.chmod(0o777)


FOREIGN = [pytest.param(_of_another_user, marks=AS_ROOT), _open_to_all, _replaceable]


@pytest.mark.parametrize("give", FOREIGN)
def test_a_list_that_somebody_else_may_have_written_is_not_read(models: Path, give: Callable[[Path], None]) -> None:
    """In a cache that users share, it would take away the names of every model."""
    scan = Scan()
    names_from_cache(scan)(models)
    (kept,) = (models.parent / "cache").rglob("*.json")
    kept.write_text(PLANTED)
    give(kept)
    assert names_from_cache(scan)(models) == FOUND
    assert kept.read_text() == PLANTED
    assert len(scan.asked) == 2


def test_each_user_of_a_shared_cache_has_a_list_of_their_own(models: Path) -> None:
    names_from_cache(Scan())(models)
    (kept,) = (models.parent / "cache").rglob("*.json")
    assert kept.parent.name == f"transformers-names-{os.getuid()}"
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_no_place_for_a_cache(models: Path) -> None:
    scan = Scan()
    (models.parent / "cache").write_text("a file where the folder should be")
    assert names_from_cache(scan)(models) == FOUND
    assert names_from_cache(scan)(models) == FOUND
    assert len(scan.asked) == 2
