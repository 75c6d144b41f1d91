"""Infers text columns and labels of a user's own data set, by the rules of the example script."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsys.errors import DataError

LABEL = "label"


@dataclass(frozen=True)
class InferredTask:
    """One or two text columns, and the class names in the order of their ids; no names for a regression."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def regression(self) -> bool:
        """True if the label is a number to predict."""
        return not self.labels


def infer_from_file(path: Path) -> InferredTask:
    """Infer the task from a training file: CSV, TSV, JSON lines or Parquet. Raises DataError if it cannot be read."""
    import pyarrow as pa

    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: a file that ends in {path.suffix!r} cannot be read. Give one of {', '.join(_READERS)}."
        )
    try:
        table = reader(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Correct --train_file.") from error
    except pa.ArrowException as error:
        raise DataError(f"{path}: is not what its name says ({error}). Write the file again.") from error
    return infer_from_table(table, str(path))


def infer_from_hub(repository: str, configuration: str) -> InferredTask:
    """Infer the task from a Hub data set, or a folder in its form. Raises DataError if it cannot be loaded."""
    from ftsys.data.sources.hub import load_splits

    splits = load_splits(repository, configuration)
    if "train" not in splits:
        raise DataError(f"{repository!r} has no split 'train', only {', '.join(splits)}: name another data set.")
    train = splits["train"]
    names = getattr(train.features.get(LABEL), "names", None)
    if names:
        return InferredTask(_text_columns(train.column_names, repository), tuple(names))
    return infer_from_table(train.with_format("arrow")[:], repository)


def infer_from_table(table: Any, place: str) -> InferredTask:
    """Infer the task from a pyarrow Table: floating-point labels make a regression, all others are sorted classes."""
    import pyarrow as pa

    columns = _text_columns(table.column_names, place)
    labels = table.column(LABEL)
    if pa.types.is_floating(labels.type):
        return InferredTask(columns, ())
    classes = sorted(value for value in labels.unique().to_pylist() if value is not None)
    if len(classes) < 2:
        raise DataError(f"{place}: its labels are {classes}, and a task has two classes or more. Correct the labels.")
    return InferredTask(columns, tuple(str(value) for value in classes))


def _text_columns(names: list[str], place: str) -> tuple[str, ...]:
    """Choose `sentence1` and `sentence2` if both are there, else the first one or two columns besides the label."""
    if LABEL not in names:
        raise DataError(f"{place}: no column {LABEL!r}; the columns there are {', '.join(names)}. Rename one of them.")
    texts = [name for name in names if name != LABEL]
    if not texts:
        raise DataError(f"{place}: no column but {LABEL!r}, so there is no text. Add one.")
    return ("sentence1", "sentence2") if {"sentence1", "sentence2"} <= set(texts) else tuple(texts[:2])


def _read_csv(path: Path) -> Any:
    from pyarrow import csv

    return csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))


def _read_tsv(path: Path) -> Any:
    from pyarrow import csv

    return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter="\t", quote_char=False))


def _read_json(path: Path) -> Any:
    from pyarrow import json

    return json.read_json(path)


def _read_parquet(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(path)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".parquet": _read_parquet,
}
