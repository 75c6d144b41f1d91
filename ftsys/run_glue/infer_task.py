"""Infers text columns and labels of a user's own data set, by the rules of the example script, and notes its guesses.

Files are read by the reader of `ftsys.data.sources`, which also reads them for the store: both see the same rows.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ftsys.data.sources.dialect import AUTO
from ftsys.data.sources.parquet_files import class_names
from ftsys.data.sources.rows import ROWS_PER_BATCH, Columns
from ftsys.data.sources.text_files import TableFile, check_file
from ftsys.errors import DataError
from ftsys.labels import ClassNames, as_seen, is_missing, number_of, truth_of, visible

LABEL = "label"

_SAMPLE_ROWS = 1000
_INDEX = re.compile(r"|index|unnamed: ?\d+|level_\d+|__index_level_\d+__", re.IGNORECASE)
_ID = re.compile(r"(.*[_ -])?(id|ids|idx|guid|uuid)|.*(Id|ID|Idx)|id\d*")
_WORDS = re.compile(r"[^\W\d_]+\W+[^\W\d_]+")


@dataclass(frozen=True)
class Wishes:
    """Choices of the flags about a data set, so that they need not be guessed. None: infer it."""

    texts: tuple[str, ...] | None = None
    label: str = LABEL
    regression: bool | None = None
    quoting: str = AUTO

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> "Wishes":
        """Collect the wishes of the flags."""
        names = flags.get("text_column_names")
        return cls(
            tuple(names.split(",")) if names else None,
            flags.get("label_column_name") or LABEL,
            flags.get("do_regression"),
            flags.get("quoting", AUTO),
        )


INFER_ALL = Wishes()


@dataclass(frozen=True)
class InferredTask:
    """One or two text columns, and the class names in the order of their ids; no names for a regression."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    label_column: str = LABEL
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def regression(self) -> bool:
        """True if the label is a number to predict."""
        return not self.labels


def infer_from_file(path: Path, wishes: Wishes = INFER_ALL) -> InferredTask:
    """Infer the task from a training file: CSV, TSV, JSON or Parquet. Raises DataError if it cannot be read."""
    check_file(path)
    head = TableFile(path, Columns(wishes.texts or (), wishes.label, True), quoting=wishes.quoting)
    sample = head.sample(_SAMPLE_ROWS)
    if not sample or not any(sample.values()):
        raise DataError(f"{path} has no rows. Copy or download it again, or correct --train_file.")
    texts, notes = text_columns(sample, wishes, str(path))
    file = TableFile(path, Columns(texts, wishes.label, True), quoting=wishes.quoting)
    labels = _distinct((label for rows in file.read(ROWS_PER_BATCH) for label in rows.labels or ()), str(path))
    known = class_names(path, wishes.label) if path.suffix.lower() == ".parquet" else []
    found, about_labels = (known, ()) if known else infer_classes(labels, wishes.regression, str(path))
    return InferredTask(texts, tuple(found), wishes.label, (*notes, *about_labels))


def infer_from_hub(repository: str, configuration: str, wishes: Wishes = INFER_ALL) -> InferredTask:
    """Infer the task from a Hub data set, or a folder in its form. Raises DataError if it cannot be loaded."""
    from ftsys.data.sources.hub import load_splits

    splits = load_splits(repository, configuration)
    if "train" not in splits:
        raise DataError(f"{repository!r} has no split 'train', only {', '.join(splits)}: name another data set.")
    train, label = splits["train"], wishes.label
    Columns((), label, True).find(train.column_names, repository)
    texts, notes = text_columns(train.with_format(None)[:_SAMPLE_ROWS], wishes, repository)
    names = getattr(train.features.get(label), "names", None)
    if names:
        return InferredTask(texts, tuple(names), label, notes)
    labels = _distinct(train.with_format("arrow")[:].column(label).unique().to_pylist(), repository)
    found, about_labels = infer_classes(labels, wishes.regression, repository)
    return InferredTask(texts, found, label, (*notes, *about_labels))


def text_columns(
    sample: Mapping[str, Sequence[object]], wishes: Wishes, place: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the text columns by the first rows, and return them with notes on the choice.

    They are those that were wished for, or `sentence1` and `sentence2`, or else the first two columns with text: no
    index, no ids and no numbers, and, if some columns have values of several words, only those.
    """
    if wishes.texts:
        Columns(wishes.texts, wishes.label, True).find(list(sample), place)
        return wishes.texts, ()
    others = [name for name in sample if name != wishes.label]
    if {"sentence1", "sentence2"} <= set(others):
        return ("sentence1", "sentence2"), ()
    candidates = [name for name in others if not _is_index(name) and not _are_numbers(sample[name])]
    candidates = [name for name in candidates if _has_words(sample[name])] or candidates
    if not candidates:
        raise DataError(
            f"{place}: no column with text beside {wishes.label!r} (the others are {others}). Add one, or name it with "
            "--text_column_names."
        )
    texts, left = tuple(candidates[:2]), [name for name in others if name not in candidates[:2]]
    if not left:
        return texts, ()
    taken, unused = (" and ".join(map(repr, names)) for names in (texts, left))
    return texts, (f"{place}: the text is taken from {taken}, not from {unused}; --text_column_names names others",)


def _is_index(name: str) -> bool:
    return bool(_INDEX.fullmatch(name.strip()) or _ID.fullmatch(name.strip()))


def _are_numbers(values: Sequence[object]) -> bool:
    there = [value for value in values if not is_missing(value)]
    return not any(isinstance(value, str) and number_of(value) is None for value in there)


def _has_words(values: Sequence[object]) -> bool:
    return any(isinstance(value, str) and _WORDS.search(value) for value in values)


def _distinct(labels: Iterable[object], place: str) -> list[object]:
    """Return the distinct labels in the order of the rows, without missing ones, which the store's reader refuses.

    Raises DataError for a label that is neither text nor a number.
    """
    seen: dict[tuple[type, object], None] = {}
    for label in labels:
        if not is_missing(label):
            if not isinstance(label, str | int | float | Decimal):
                raise DataError(f"{place}: {ClassNames(()).complaint(label, 'own')}")
            seen[type(label), label] = None
    return [label for _, label in seen]


def infer_classes(
    labels: Sequence[object], regression: bool | None, place: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes of distinct labels in their order, or none for a regression, with notes on the choice.

    Numbers with a decimal point make a regression, all others are sorted classes. Raises DataError for spellings that
    may be one class or two, and for fewer than two classes.
    """
    numbers = [number_of(label) for label in labels]
    fractions = bool(labels) and None not in numbers and any("." in str(label) for label in labels)
    if regression or (regression is None and fractions):
        doubtful = regression is None and all(number == int(number) for number in numbers if number is not None)
        note = (
            f"{place}: its labels, such as {labels[0]!r}, are numbers to predict; --do_regression false makes classes"
        )
        return (), ((note,) if doubtful else ())
    classes = [_one_spelling(same, place) for same in _alike(labels).values()]
    if len(classes) < 2:
        raise DataError(f"{place}: its labels are {classes}, and a task has two classes or more. Correct the labels.")
    return tuple(sorted(classes, key=_sort_key(classes))), ()


def _alike(labels: Sequence[object]) -> dict[object, list[object]]:
    """Group labels that may be one class: the same number, truth value, or text apart from upper and lower case."""
    groups: dict[object, list[object]] = defaultdict(list)
    for label in labels:
        number, truth = number_of(label), truth_of(label)
        key = ("number", number) if number is not None else ("text", as_seen(str(label)).casefold())
        groups[key if truth is None else ("truth", truth)].append(label)
    return groups


def _one_spelling(labels: Sequence[object], place: str) -> str:
    """Return the name of a class from its spellings in the data."""
    spellings = sorted({as_seen(str(label)) for label in labels})
    if truth_of(labels[0]) is not None:
        return spellings[0] if len(spellings) == 1 and isinstance(labels[0], str) else spellings[0].lower()
    number = number_of(labels[0])
    if number is not None and number == int(number):
        spellings = [each for each in spellings if "." not in each] or [str(int(number))]
    if len(spellings) == 1:
        return spellings[0]
    raise DataError(
        f"{place}: the labels {visible(spellings[0])} and {visible(spellings[1])} may be one class or two. Write them "
        "the same in the file, or name the classes in a run file's task.labels."
    )


def _sort_key(classes: Sequence[str]) -> Any:
    """Return the key that sorts numbers by their size and all others as text."""
    numbers = {name: number_of(name) for name in classes}
    return numbers.get if None not in numbers.values() else None
