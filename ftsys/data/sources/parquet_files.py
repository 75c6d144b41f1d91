"""Reads rows from Parquet files. The ids of a class label that `datasets` wrote become the names of its classes."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ftsys.data.sources.numbered_lines import LONGEST
from ftsys.data.sources.rows import Columns, Rows, check_texts
from ftsys.errors import DataError
from ftsys.files.untrusted import parse_json

MOST_TEXT = 1 << 26
"""Bytes of the texts that are made at once. In a Parquet file, all rows can refer to one copy of a long text."""


def parquet_rows(path: Path, columns: Columns, rows_per_batch: int) -> Iterator[Rows]:
    """Yield rows of a Parquet file; memory is bounded by the size of its row groups."""
    import pyarrow

    parquet = open_parquet(path)
    _, found = columns.find(parquet.schema_arrow.names, str(path))
    wanted = [*columns.texts] + ([] if found is None else [*columns.labels])
    names = {name: dict(enumerate(class_names(path, name))) for name in columns.labels}
    done = 0
    try:
        for batch in parquet_batches(path, wanted, rows_per_batch):
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


def parquet_batches(path: Path, columns: Sequence[str] | None, rows_per_batch: int) -> Iterator[Any]:
    """Yield the rows of some columns, or of all, at most `rows_per_batch` at a time and fewer long ones.

    Raises DataError for a row whose texts have more than LONGEST bytes, before they are made; and pyarrow's errors.
    """
    import pyarrow

    texts = [field.name for field in open_parquet(path).schema_arrow if _is_text(field.type)]
    done = 0
    for batch in open_parquet(path, texts).iter_batches(rows_per_batch, columns=columns):
        sizes = sum((_sizes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
        if (sizes > LONGEST).any():
            row = done + int((sizes > LONGEST).argmax()) + 1
            raise DataError(f"{path}, row {row}: more than {LONGEST:,} bytes. Shorten its text.")
        starts = np.flatnonzero(np.diff(np.cumsum(sizes) // MOST_TEXT, prepend=-1))
        for begin, end in pairwise([*starts.tolist(), batch.num_rows]):
            part = [_decoded(column) for column in batch.slice(begin, end - begin).columns]
            yield pyarrow.RecordBatch.from_arrays(part, names=batch.schema.names)
        done += batch.num_rows


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind))


def _sizes(column: Any) -> Any:
    """Return the bytes of each value (R,) of a column that was read as a dictionary; 0 for any other."""
    import pyarrow
    import pyarrow.compute as compute

    if not isinstance(column, pyarrow.DictionaryArray) or not _is_text(column.dictionary.type):
        return 0
    sizes = compute.binary_length(column.dictionary).take(column.indices)
    return sizes.fill_null(0).to_numpy(zero_copy_only=False)


def _decoded(column: Any) -> Any:
    import pyarrow

    return column.dictionary_decode() if isinstance(column, pyarrow.DictionaryArray) else column


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


def open_parquet(path: Path, as_dictionary: Sequence[str] = ()) -> Any:
    """Open a Parquet file, whose head is read. Raises DataError if it is none.

    Columns `as_dictionary` are read as each text once, with the rows that have it.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path, read_dictionary=list(as_dictionary))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # a column's name may be no UTF-8
        raise DataError(f"{path}: not a Parquet file ({error}). Copy or write it again.") from error
