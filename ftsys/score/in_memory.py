"""Takes rows of text out of what Python programs hold them in: lists, iterators, pandas, polars, `datasets`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ftsys.errors import DataError
from ftsys.score.columns import text_columns
from ftsys.score.readers.rows import Fault, Wanted
from ftsys.score.windows import Entry, Place

_NAMES = ("first text", "second text")
_NO_ROW = object()


def entries_of(data: Any, columns: Sequence[str] | None, known: Sequence[str] | None) -> Iterator[Entry]:
    """Yield the rows of `data`, one at a time, each with one or two texts.

    `data` is an iterable of texts, of pairs or of dictionaries, a column (Series), or a table with named columns.
    `columns` names those of the texts in tables and dictionaries; else they are found as for a file, with `known`.

    Raises:
        DataError: a row is none of these, has another number of texts than the first, or a text that is none.
    """
    if isinstance(data, str | bytes) or not (isinstance(data, Iterable) or _keys(data)):
        raise DataError(f"{repr(data)[:60]} is no collection of rows: give a list, even of one text.")
    if isinstance(data, Mapping):
        raise DataError(
            f"a dictionary ({repr(data)[:60]}) is no collection of rows: give a list of dictionaries, one for each "
            "row, or a table."
        )
    names = None if columns is None else [str(name) for name in columns]
    keys = _keys(data)
    return _checked(_of_table(data, keys, names, known) if keys else _of_items(data, names, known))


def _keys(data: Any) -> list[Any]:
    """Return the keys of a table's columns, in pandas any objects; empty for anything else."""
    for name in ("column_names", "columns"):  # of `datasets` and pyarrow; of pandas and polars
        found = getattr(data, name, None)
        if found is not None and not callable(found):
            return list(found)
    return []


def _of_table(
    data: Any, keys: Sequence[Any], columns: Sequence[str] | None, known: Sequence[str] | None
) -> Iterator[tuple[Any, ...]]:
    by_name = {str(key): key for key in keys}
    names = _chosen([str(key) for key in keys], columns, known)
    return zip(*(_values(data[by_name[name]]) for name in names), strict=True)


def _values(column: Any) -> Iterable[Any]:
    """Return a column's values as Python's own, which those of pyarrow are not."""
    return column.to_pylist() if hasattr(column, "to_pylist") else column


def _of_items(
    data: Iterable[Any], columns: Sequence[str] | None, known: Sequence[str] | None
) -> Iterator[tuple[Any, ...]]:
    items = iter(data)
    first = next(items, _NO_ROW)
    if first is _NO_ROW:
        return
    names = _chosen(list(first), columns, known) if isinstance(first, Mapping) else ()
    for item in chain([first], items):
        if isinstance(item, Mapping):
            yield tuple(item.get(name) for name in names)
        else:
            several = not isinstance(item, str) and isinstance(item, Sequence | np.ndarray)
            yield tuple(item) if several else (item,)


def _chosen(header: Sequence[str], columns: Sequence[str] | None, known: Sequence[str] | None) -> tuple[str, ...]:
    names, _ = text_columns(header, "the rows", columns, known, flag="columns=")
    Wanted(names).check("the rows", header, "columns=")
    return names


def _checked(rows: Iterator[tuple[Any, ...]]) -> Iterator[Entry]:
    width = 0
    for number, texts in enumerate(rows, 1):
        width = width or len(texts)
        place = Place("the rows", "row", number)
        if len(texts) != width or width not in (1, 2):
            raise DataError(
                f"{place}: {len(texts)} texts, where rows have {width or 'one or two'}: give one or a pair."
            )
        line = Wanted(_NAMES[:width]).line(number, texts, ())
        if isinstance(line, Fault):
            raise DataError(f"{place}: {line.reason}.")
        yield Entry(place, line.texts, ())
