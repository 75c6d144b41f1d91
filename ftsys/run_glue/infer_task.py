"""What a data set of one's own is about, told from itself as the example script tells it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsys.errors import DataError

LABEL = "label"


@dataclass(frozen=True)
class Shape:
    """Text columns, one or two, and class names in the order of their ids; none for a regression."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def regression(self) -> bool:
        """Whether the label is a number to predict."""
        return not self.labels


def look_at_file(path: Path) -> Shape:
    """The shape of a training file: CSV, TSV, JSON lines or Parquet. Raises DataError for what cannot be read."""
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
    return shape_of(table, str(path))


def look_at_hub(repository: str, configuration: str) -> Shape:
    """The shape of a data set of the Hub, or of a folder in its form. Raises DataError where it cannot be loaded."""
    from ftsys.data.sources.hub import load_splits

    splits = load_splits(repository, configuration)
    if "train" not in splits:
        raise DataError(f"{repository!r} has no split 'train', only {', '.join(splits)}: name another data set.")
    train = splits["train"]
    names = getattr(train.features.get(LABEL), "names", None)
    if names:
        return Shape(_text_columns(train.column_names, repository), tuple(names))
    return shape_of(train.with_format("arrow")[:], repository)


def shape_of(table: Any, place: str) -> Shape:
    """The shape of a pyarrow Table: numbers with a fraction are scores, all else are classes, sorted."""
    import pyarrow as pa

    columns = _text_columns(table.column_names, place)
    labels = table.column(LABEL)
    if pa.types.is_floating(labels.type):
        return Shape(columns, ())
    classes = sorted(value for value in labels.unique().to_pylist() if value is not None)
    if len(classes) < 2:
        raise DataError(f"{place}: its labels are {classes}, and a task has two classes or more. Correct the labels.")
    return Shape(columns, tuple(str(value) for value in classes))


def _text_columns(names: list[str], place: str) -> tuple[str, ...]:
    """`sentence1` and `sentence2`, else the first two that are not the label, else the only one."""
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
