"""Opens every kind of `data.source` as a `Source`: named splits of text and labels, with one fingerprint."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ftsys.config.old_words import todays_word
from ftsys.data.sources.dialect import AUTO
from ftsys.data.sources.first_rows import FirstRows
from ftsys.data.sources.glue_files import glue_splits
from ftsys.data.sources.hub import GLUE_REPOSITORY, dataset_splits, hub_splits, is_dataset
from ftsys.data.sources.label_sets import reader_of
from ftsys.data.sources.rows import ROWS_PER_BATCH, Columns, Rows, SourceSplit, TextBatch
from ftsys.data.sources.text_files import TableFile, check_file
from ftsys.did_you_mean import question
from ftsys.errors import DataError
from ftsys.files.paths import expanded, there
from ftsys.tasks import Task

__all__ = ["ROWS_PER_BATCH", "DataLike", "Source", "TextBatch", "open_source"]

_LAYOUT_VERSION = 2
"""Increase this number when the same bytes are read as other rows, so that no older store is used for them."""
_LABEL_COLUMNS_VERSION = 3
"""The same number for tasks with several columns of labels."""


class DataLike(Protocol):
    """The part of the run file's [data] that decides the rows."""

    @property
    def source(self) -> Any:
        """'hub', 'hub:NAME_OR_PATH', 'synthetic', a GLUE folder, a file for each split, a Dataset or a DatasetDict."""


@dataclass(frozen=True)
class Source:
    """Text and labels of a task. Made by `open_source`; holds no more than one batch in memory."""

    task: Task
    _splits: Mapping[str, SourceSplit]
    _places: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False
    _digests: dict[str, str] = field(default_factory=dict, compare=False)
    """The digests of the splits that `fingerprint` was made of."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in the task's order."""
        return tuple(self._splits)

    def items(self) -> Iterable[tuple[str, SourceSplit]]:
        """Return each split with its name."""
        return self._splits.items()

    @property
    def notes(self) -> list[str]:
        """The notes on what was guessed of the files' form, for the user."""
        files = (split.split if isinstance(split, FirstRows) else split for split in self._splits.values())
        return [note for file in files if (note := getattr(file, "note", ""))]

    @cached_property
    def fingerprint(self) -> str:
        """The hex SHA-256 of everything that decides the rows: bytes, layout, columns, labels. Reads each file once."""
        task = self.task
        self._digests.update({name: split.sha256() for name, split in self._splits.items()})
        facts: dict[str, object] = {
            "layout": _LABEL_COLUMNS_VERSION if task.label_columns else _LAYOUT_VERSION,
            "columns": task.columns,
            "labels": task.labels,
            "regression": task.regression,
            **task.multi_label_facts(),
            "splits": {
                name: [split.columns.texts, split.columns.label, split.columns.label_required, self._digests[name]]
                for name, split in self._splits.items()
            },
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def rows(self, split: str) -> int | None:
        """Return the exact number of rows of `split`; None if only reading it tells (CSV)."""
        return self._split(split).rows()

    def batches(self, split: str, rows_per_batch: int = ROWS_PER_BATCH) -> Iterator[TextBatch]:
        """Yield all rows of `split` in the order of the file.

        Raises DataError with the place of the first bad row, and at the end if they are not the rows of `fingerprint`.
        """
        held = self._split(split)
        reader = reader_of(self.task, held.columns.label_required)
        first_row = 0
        for rows in held.read(rows_per_batch):
            labels = reader.read(rows.labels, len(rows.first), self._where(split, rows))
            yield TextBatch(first_row, rows.first, rows.second, labels)
            first_row += len(rows.first)
        if not first_row:
            raise DataError(
                f"{self._places.get(split, split)} has no rows. Copy or download it again, or correct data.source."
            )
        if split in self._digests and self._has_changed(split):
            raise DataError(f"{self._places.get(split, split)} changed while it was read: start again.")

    def _has_changed(self, split: str) -> bool:
        try:
            return self._splits[split].sha256() != self._digests[split]
        except OSError:  # its file was removed
            return True

    def _split(self, split: str) -> SourceSplit:
        if split not in self._splits:
            raise DataError(
                f"the source has no split {split!r}; it has {', '.join(self._splits)}.{question(split, self._splits)} "
                "Add it to data.source, or leave it out."
            )
        return self._splits[split]

    def _where(self, split: str, rows: Rows) -> Callable[[int], str]:
        place, unit = self._places.get(split, split), self._splits[split].unit
        return lambda index: f"{place}, {unit} {rows.lines[index]}"


def open_source(data: DataLike, task: Task) -> Source:
    """Open the rows that `data.source` has for `task`, cut off as `data.first_rows` says if `data` has that.

    Checks each split's columns and first row, so that most mistakes are found before the work begins. Raises DataError
    for a source that is missing, empty, or of another kind than its name says.
    """
    source = _open(todays_word("data.source", data.source), task, getattr(data, "quoting", AUTO))
    source = _cut(source, getattr(data, "first_rows", {}))
    for split in source.splits:
        next(source.batches(split, rows_per_batch=1))
    return source


def _open(source: Any, task: Task, quoting: str) -> Source:
    if is_dataset(source):
        return _of_datasets(dataset_splits(source, task), task)
    if isinstance(source, Mapping):
        return _of_files(_named_files(source, task, quoting), task)
    name = str(source)
    if name == "synthetic":
        return _synthetic(task)
    if name == "hub":
        return _of_datasets(hub_splits(GLUE_REPOSITORY, task), task)
    if name.startswith("hub:"):
        return _of_datasets(hub_splits(name.removeprefix("hub:"), task), task)
    path = expanded(name)
    if there(path) and path.is_file():
        raise DataError(
            f"data.source={name!r} is one file. Name a file for each split: {{train = {name!r}, validation = ...}}."
        )
    if not there(path) or not path.is_dir():
        raise DataError(
            f"data.source={name!r} is not a folder.{question(name, ('hub', 'synthetic'))} Write 'hub', "
            "'hub:NAME_OR_PATH', 'synthetic', a folder of GLUE's TSV files, or a file for each split."
        )
    return _of_files(glue_splits(path, task), task)


def _cut(source: Source, first_rows: Mapping[str, int]) -> Source:
    """Cut off the splits that `first_rows` names. Names of other splits are ignored."""
    cut = {name: FirstRows(split, first_rows[name]) if name in first_rows else split for name, split in source.items()}
    return replace(source, _splits=cut) if first_rows else source


def _of_files(files: dict[str, TableFile], task: Task) -> Source:
    return Source(task, files, {split: str(file.path) for split, file in files.items()})


def _of_datasets(splits: Mapping[str, Any], task: Task) -> Source:
    return Source(task, splits, {name: split.place for name, split in splits.items()})


def _named_files(source: Mapping[str, str | Path], task: Task, quoting: str) -> dict[str, TableFile]:
    unknown = [split for split in source if split not in task.splits]
    if unknown or not source:
        wrong = f"the split {unknown[0]!r}" if unknown else "no split at all"
        raise DataError(
            f"data.source names {wrong}; task {task.name!r} has {', '.join(task.splits)}."
            f"{question(unknown[0], task.splits) if unknown else ''} Rename it."
        )
    ordered = [split for split in task.splits if split in source]
    files = {split: TableFile(expanded(source[split]), Columns.of(task, split), quoting=quoting) for split in ordered}
    for file in files.values():
        check_file(file.path)
    return files


def _synthetic(task: Task) -> Source:
    from ftsys.data.sources.synthetic.sample import synthetic_splits

    return Source(task, synthetic_splits(task), {"train": "the synthetic sample"}, synthetic=True)
