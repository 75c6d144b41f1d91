"""Reads the columns of a `datasets.Dataset` or of a list of dictionaries as flat NumPy arrays."""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

LabelColumn = npt.NDArray[Any]


class NotPackable(Exception):
    """Raised for rows that must take the stock data path; the message is the reason, for the user."""


@dataclass(frozen=True, eq=False)
class Column:
    """One list per row, concatenated: `values` (T,) integers, `starts` and `lengths` int64 (N,)."""

    values: npt.NDArray[np.integer]
    lengths: npt.NDArray[np.int64]

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """The index in `values` of each row's first element."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def rows(self) -> int:
        """The number of rows, N."""
        return len(self.lengths)


@dataclass
class Columns:
    """The lists and labels by column name, and the names of all other columns."""

    lists: dict[str, Column] = field(default_factory=dict)
    labels: dict[str, LabelColumn] = field(default_factory=dict)
    other_names: set[str] = field(default_factory=set)


def columns_of(data: Any, names: Collection[str]) -> Columns:
    """Read the columns in `names`. Raises NotPackable for data that cannot be read as columns."""
    import datasets

    if isinstance(data, datasets.Dataset):
        return _from_dataset(data, names)
    if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        return _from_rows(data, names)
    raise NotPackable(f"the data is a {type(data).__name__}, not a datasets.Dataset or a list of dictionaries")


def _from_dataset(data: Any, names: Collection[str]) -> Columns:
    """Read the columns that a `Dataset`'s format shows: it may hide some."""
    if data.format["type"] == "custom":
        raise NotPackable("the data set computes its rows by a transform at each access")
    visible = data.format["columns"]
    wanted = [name for name in visible if name in names]
    found = Columns(other_names=set(visible) - set(wanted))
    if not wanted:
        return found
    table = data.select_columns(wanted).with_format("arrow")[:]
    for name in wanted:
        column = table.column(name)
        if column.null_count:
            raise NotPackable(f"column {name!r} has empty cells")
        if isinstance(column.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
            found.lists[name] = _list_column(name, column)
        else:
            found.labels[name] = _number_column(name, column)
    return _by_kind(found)


def _list_column(name: str, column: pa.ChunkedArray) -> Column:
    """Concatenate the lists of all chunks; a single chunk's values are a view of the table's own memory."""
    if not pa.types.is_integer(column.type.value_type):
        raise NotPackable(f"column {name!r} does not hold lists of integers")
    # 64-bit offsets: one array may hold more than 2^31 tokens.
    whole = column.cast(pa.large_list(column.type.value_type)).combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], whole.type)
    offsets = whole.offsets.to_numpy()
    values = whole.values
    if values.null_count:
        raise NotPackable(f"column {name!r} has empty cells within a row")
    return Column(values.to_numpy()[offsets[0] : offsets[-1]], np.diff(offsets))


def _number_column(name: str, column: pa.ChunkedArray) -> LabelColumn:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise NotPackable(f"column {name!r} holds {column.type}, not numbers")
    return column.to_numpy()


def _from_rows(data: list[Mapping[str, Any]], names: Collection[str]) -> Columns:
    known = set(data[0])
    if any(row.keys() != known for row in data):
        raise NotPackable("the rows do not all have the same keys")
    found = Columns(other_names=known - set(names))
    for name in known & set(names):
        cells = [row[name] for row in data]
        if hasattr(cells[0], "__len__"):
            found.lists[name] = _list_cells(name, cells)
        else:
            found.labels[name] = _number_cells(name, cells)
    return _by_kind(found)


def _list_cells(name: str, cells: list[Any]) -> Column:
    """Concatenate cells that are lists, arrays or tensors of one dimension."""
    if any(not hasattr(cell, "__len__") or getattr(cell, "ndim", 1) != 1 for cell in cells):
        raise NotPackable(f"column {name!r} does not hold one flat list a row")
    lengths = np.fromiter(map(len, cells), np.int64, len(cells))
    flat = itertools.chain.from_iterable(cell.tolist() if hasattr(cell, "tolist") else cell for cell in cells)
    values = np.array(list(flat))
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise NotPackable(f"column {name!r} does not hold lists of integers")
    return Column(values.astype(np.int64, copy=False), lengths)


def _number_cells(name: str, cells: list[Any]) -> LabelColumn:
    values = np.array([cell.item() if hasattr(cell, "item") else cell for cell in cells])
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise NotPackable(f"column {name!r} does not hold one number a row")
    return values


def _by_kind(found: Columns) -> Columns:
    """Check that tokens are lists and labels are numbers; raises NotPackable otherwise."""
    for name in found.lists:
        if name.startswith("label"):
            raise NotPackable(f"column {name!r} holds a list a row, not one number")
    for name in found.labels:
        if not name.startswith("label"):
            raise NotPackable(f"column {name!r} holds one number a row, not a list")
    return found
