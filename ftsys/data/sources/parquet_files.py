"""Reads rows from Parquet files. The ids of a class label that `datasets` wrote become the names of its classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftsys.data.sources.rows import Columns, Rows, check_texts
from ftsys.errors import DataError
from ftsys.files.untrusted import parse_json


def parquet_rows(path: Path, columns: Columns, rows_per_batch: int) -> Iterator[Rows]:
    """Yield rows of a Parquet file; memory is bounded by the size of its row groups."""
    import pyarrow

    parquet = open_parquet(path)
    _, found = columns.find(parquet.schema_arrow.names, str(path))
    wanted = [*columns.texts] + ([] if found is None else [*columns.labels])
    names = {name: dict(enumerate(class_names(path, name))) for name in columns.labels}
    done = 0
    try:
        for batch in parquet.iter_batches(rows_per_batch, columns=wanted):
            numbers = range(done + 1, done + batch.num_rows + 1)
            texts = [
                check_texts(batch.column(name).to_pylist(), name, str(path), "row", numbers) for name in columns.texts
            ]
            labels = None
            if found is not None:
                cells = [named(batch.column(name).to_pylist(), names[name]) for name in columns.labels]
                labels = columns.joined(cells)
            yield Rows.from_texts(texts, labels, numbers)
            done += batch.num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: broken after row {done} ({error}). Copy or write the file again.") from error


def named(labels: list[object], names: dict[int, str]) -> list[object]:
    """Replace the ids of a `ClassLabel` by its names, in a list of ids too; other values (-1: unlabelled) stay."""
    if not names:
        return labels
    return [
        named(each, names) if isinstance(each, list) else names.get(each, each)  # type: ignore[call-overload]  # any key
        for each in labels
    ]


def class_names(path: Path, column: str) -> list[str]:
    """Return the class names that `datasets` wrote into the file for a column; empty if it has none."""
    metadata = open_parquet(path).schema_arrow.metadata or {}
    try:
        feature = parse_json(metadata[b"huggingface"])["info"]["features"][column]
        feature = feature.get("feature", feature)  # that of a list's items
        return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, ValueError, AttributeError):  # not written by `datasets`
        return []


def open_parquet(path: Path) -> Any:
    """Open a Parquet file, whose head is read. Raises DataError if it is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # a column's name may be no UTF-8
        raise DataError(f"{path}: not a Parquet file ({error}). Copy or write it again.") from error
