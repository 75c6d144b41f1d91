"""Makes the stores of a table's cells, one for each model and task, and finds wrong input before anything starts."""

from collections.abc import Sequence

from ftsys.console.printer import say
from ftsys.data.prepare import ensure_store
from ftsys.data.store.reader import Store
from ftsys.errors import ConfigError, DataError
from ftsys.report.log_filters import quiet_libraries
from ftsys.report.progress import SplitProgress
from ftsys.table.cells import Cell

Stores = dict[tuple[str, str], Store]
"""Stores by the names of model and column."""


def prepare(cells: Sequence[Cell]) -> Stores:
    """Find or make each store once. Raises DataError or ConfigError with the mistakes of all columns."""
    quiet_libraries()
    stores: Stores = {}
    wrong: dict[str, ConfigError | DataError] = {}
    for cell in cells:
        if (cell.model, cell.column) not in stores:
            try:
                stores[cell.model, cell.column] = _store(cell)
            except (ConfigError, DataError) as error:
                wrong[f"{cell.model}, {cell.column}: {error}"] = error
    if wrong:
        raise type(next(iter(wrong.values())))("\n".join(wrong))
    return stores


def _store(cell: Cell) -> Store:
    with SplitProgress(f"prepare {cell.model}, {cell.column}") as progress:
        store = ensure_store(cell.origin, cell.task, progress)
    if str(cell.task.train_split) not in store.splits:
        raise DataError(f"the source has no split {cell.task.train_split!r}, so there is nothing to train on.")
    if not any(name in store.splits for name in cell.task.evaluation_splits):
        say(f"note: {cell.model}, {cell.column}: no validation split, so its row has no metrics")
    return store
