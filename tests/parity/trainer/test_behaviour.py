"""The behaviour table: what a script sees of transformers' Trainer, it sees of ours, or a row says why not."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers

from tests.parity.trainer.rows import ELSEWHERE, MORE_VALUES, ROWS
from tests.parity.trainer.sides import check


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Restore the variables: `fsdp` and others set some, which accelerate would read in every later test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_every_argument_has_a_row() -> None:
    fields = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    assert set(ROWS) | set(ELSEWHERE) == fields
    assert not set(ROWS) & set(ELSEWHERE)


@pytest.mark.parametrize("name", [*ROWS, *MORE_VALUES])
def test_an_argument_does_what_it_does_in_transformers(name: str, tmp_path: Path) -> None:
    check({**ROWS, **MORE_VALUES}[name], tmp_path)
