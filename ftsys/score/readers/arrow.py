"""Reads Parquet files and folders of `datasets`, a few rows at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftsys.data.sources.datasets_files import check_saved_folder, data_load_errors
from ftsys.data.sources.parquet_files import open_parquet, parquet_batches
from ftsys.did_you_mean import question
from ftsys.errors import DataError
from ftsys.score.readers.rows import READ_ROWS, Line, Wanted


class ParquetReader:
    """A Parquet file."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        """Read the file's schema. Raises DataError if it is no Parquet file."""
        self.place, self._path, self._file = str(path), path, open_parquet(path)
        self.columns = tuple(self._file.schema_arrow.names)
        self.types = {field.name: field.type for field in self._file.schema_arrow}
        self.rows = int(self._file.metadata.num_rows)

    def read(self, wanted: Wanted) -> Iterator[Line]:
        """Yield all rows in order. Raises DataError where the file is broken."""
        import pyarrow

        done = 0
        try:
            for batch in parquet_batches(self._path, [*{*wanted.texts, *wanted.carried}], READ_ROWS):
                yield from _rows(batch, self.place, done, wanted)
                done += batch.num_rows
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.place}: broken after row {done} ({error}). Write the file again.") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class DatasetReader:
    """A folder that `save_to_disk` of `datasets` wrote; of several splits, the one that `split` names."""

    unit = "row"

    def __init__(self, path: Path, split: str | None) -> None:
        """Map the folder's files. Raises DataError if it is no such folder, or has another split."""
        self.place = str(path)
        self._dataset = _dataset(path, split)
        self.columns = tuple(self._dataset.column_names)
        self.types = {field.name: field.type for field in self._dataset.features.arrow_schema}
        self.rows = len(self._dataset)

    def read(self, wanted: Wanted) -> Iterator[Line]:
        """Yield all rows in order. Raises DataError where a file is broken."""
        import pyarrow

        narrow = self._dataset.select_columns([*{*wanted.texts, *wanted.carried}]).with_format("arrow")
        done = 0
        try:
            for table in narrow.iter(READ_ROWS):
                yield from _rows(table, self.place, done, wanted)
                done += table.num_rows
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.place}: broken after row {done} ({error}). Write the folder again.") from error

    def close(self) -> None:
        """Do nothing: the files are mapped into memory."""


def _rows(batch: Any, place: str, done: int, wanted: Wanted) -> Iterator[Line]:
    columns = {*wanted.texts, *wanted.carried}
    values = {name: _values(batch.column(name), f"{place}, rows after {done}: column {name!r}") for name in columns}
    for at in range(batch.num_rows):
        texts, carried = ([values[name][at] for name in names] for names in (wanted.texts, wanted.carried))
        yield wanted.line(done + at + 1, texts, carried)


def _values(column: Any, what: str) -> list[Any]:
    """Return a column's values. Raises DataError for a date or time that Python's own types cannot hold."""
    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        raise
    except (OverflowError, ValueError) as error:
        raise DataError(
            f"{what} has a value that Python cannot hold ({error}). Leave the column out of --columns, or write it as "
            "text."
        ) from error
    return found


def _dataset(path: Path, split: str | None) -> Any:
    from datasets import DatasetDict, load_from_disk

    with data_load_errors(f"{path}: not a folder that `datasets` wrote", "Name a file, or such a folder."):
        check_saved_folder(path)
        found = load_from_disk(str(path))
    if not isinstance(found, DatasetDict):
        return found
    if split in found:
        return found[split]
    asked = "it has several splits" if split is None else f"it has no split {split!r}"
    raise DataError(f"{path}: {asked}.{question(split or '', found)} Name one of {', '.join(found)} with --split.")
