"""Defines the common form of all sources: columns picked from a table, rows in batches, errors that name a place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ftsys.did_you_mean import question
from ftsys.errors import DataError
from ftsys.tasks import Task

ROWS_PER_BATCH = 8192


@dataclass(frozen=True)
class TextBatch:
    """Consecutive rows of one split, in the order of the file.

    `first_row` is the index of the first row within the split, from 0. A row's index is its example id. `second` is
    None for tasks of one sentence. `labels` has one entry per row: int64 class ids (-1: unlabelled), or float64 scores
    (NaN: unlabelled); for a multi-label task it is int8 (rows, labels) of 1 and 0 (-1: unlabelled).
    """

    first_row: int
    first: list[str]
    second: list[str] | None
    labels: np.ndarray


@dataclass(frozen=True)
class Columns:
    """The names of the columns that a task reads: one or two texts, and the label, which test splits may lack.

    `label_parts` are the columns of a multi-label task that has one column for each label; `label` is not read then.
    """

    texts: tuple[str, ...]
    label: str
    label_required: bool
    label_parts: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: Task, split: str) -> "Columns":
        """Return the columns under the names that the task gives them."""
        return cls(task.columns, task.label_column, split not in task.test_splits, task.label_columns)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the columns that hold labels: usually one."""
        return self.label_parts or (self.label,)

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the columns that must be there."""
        return (*self.texts, *self.labels) if self.label_required else self.texts

    def find(self, header: Sequence[str], place: str) -> tuple[list[int], list[int] | None]:
        """Return the positions of the texts and of the labels in `header`; None for labels that a test split lacks.

        Raises DataError that begins with `place` if a column is missing or occurs twice.
        """
        has_labels = not set(self.labels).isdisjoint(header)
        wanted = (*self.texts, *self.labels) if has_labels else self.required
        missing = [name for name in wanted if name not in header]
        if missing:
            hint = " If these are the words of a row, the header line is missing." if missing == [*wanted] else ""
            raise DataError(f"{place}: {_missing_columns(missing, header, self)}{hint}")
        twice = [name for name in (*self.texts, *self.labels) if header.count(name) > 1]
        if twice:
            raise DataError(f"{place}: column {twice[0]!r} is there more than once; rename or remove one of them.")
        labels = [header.index(name) for name in self.labels] if has_labels else None
        return [header.index(name) for name in self.texts], labels

    def joined(self, labels: Sequence[Sequence[object]]) -> list[object]:
        """Return one label a row of the cells of each label column: with several columns, a tuple of cells."""
        return list(zip(*labels, strict=True)) if self.label_parts else list(labels[0])


@dataclass(frozen=True)
class Rows:
    """Raw rows of a split: `labels` as in the file (None: no label column), `lines` their numbers from 1."""

    first: list[str]
    second: list[str] | None
    labels: list[object] | None
    lines: Sequence[int]

    @classmethod
    def from_texts(cls, texts: Sequence[list[str]], labels: list[object] | None, lines: Sequence[int]) -> "Rows":
        """Make rows from one list per text column."""
        return cls(texts[0], texts[1] if len(texts) > 1 else None, labels, lines)

    def first_ones(self, count: int) -> "Rows":
        """Return the first `count` of these rows, or all if there are fewer."""
        if count >= len(self.first):
            return self
        second, labels = self.second, self.labels
        return Rows(
            self.first[:count],
            None if second is None else second[:count],
            None if labels is None else labels[:count],
            self.lines[:count],
        )


class SourceSplit(Protocol):
    """One split of a source: raw rows, and a digest of everything that decides them."""

    @property
    def columns(self) -> Columns:
        """The columns that are read."""

    @property
    def unit(self) -> str:
        """The unit of `Rows.lines`: 'line' or 'row'."""

    def read(self, rows_per_batch: int) -> Iterator[Rows]:
        """Yield raw rows in order, at most `rows_per_batch` at a time."""

    def rows(self) -> int | None:
        """Return the number of rows; None if only reading them tells."""

    def sha256(self) -> str:
        """Return a hex digest of everything that decides the rows."""


def check_texts(values: Sequence[object], column: str, place: str, unit: str, lines: Sequence[int]) -> list[str]:
    """Return `values` as a list of texts. Raises DataError with the row's place for a value that is not text."""
    for value, line in zip(values, lines, strict=True):
        if type(value) is not str:
            raise DataError(
                f"{place}, {unit} {line}: column {column!r} is {value!r}, not text. Correct the row, or name "
                "another column in task.columns."
            )
    return list(values)  # type: ignore[arg-type]  # each one was just seen to be a str


def _missing_columns(missing: Sequence[str], header: Sequence[str], wanted: Columns) -> str:
    found = ", ".join(repr(name) for name in header)
    names = ", ".join(repr(name) for name in missing)
    hint = question(missing[0], header)
    of_label = set(missing) <= set(wanted.labels)
    if of_label and wanted.label_parts:
        return f"no column {names}; the columns there are {found}.{hint} Set task.label_columns to what is there."
    key, flag = ("task.label_column", "label") if of_label else ("task.columns", "text")
    return (
        f"no column {names}; the columns there are {found}.{hint} Set {key} (run-glue: --{flag}_column_name"
        f"{'' if of_label else 's'}) to what is there."
    )
