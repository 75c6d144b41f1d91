"""Trains what is left of a table on this machine: prepares, predicts, orders the runs, and starts them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ftsys.console.printer import say
from ftsys.table.cells import Cell
from ftsys.table.dry_run import plan_lines
from ftsys.table.forecast import Forecast, Slots, forecasts_of
from ftsys.table.pool.progress import PoolProgress
from ftsys.table.pool.run import Pool
from ftsys.table.pool.slots import Slot
from ftsys.table.prepare import prepare
from ftsys.table.state import CellState
from ftsys.train.fault_tolerance.signals import Interruption


def train_cells(
    cells: Sequence[Cell], states: Mapping[Path, CellState], slots: Slots, places: Sequence[Slot]
) -> Mapping[Path, CellState]:
    """Train every cell that is not settled; returns the states by run folder.

    Raises what `prepare` and `forecasts_of` raise for wrong input, before anything starts, and what `Pool.run` raises.
    """
    interruption = Interruption()
    with interruption.watching():
        costs = forecasts_of(cells, prepare(cells), slots)
        for line in plan_lines(cells, states, costs, slots):
            say(line)
        interruption.deferred = True  # from here on runs have to save before this process ends
        seconds = {cell.folder: costs[cell.model, cell.column].seconds or 0.0 for cell in cells}
        with PoolProgress(len(cells), seconds, slots.count) as progress:
            return Pool(in_order(cells, costs), places, progress, lambda: interruption.wanted).run()


def in_order(cells: Sequence[Cell], costs: Mapping[tuple[str, str], Forecast]) -> list[Cell]:
    """Return the cells in the order of their starts: those that others start from, then the longest first."""
    needed = {cell.needs for cell in cells}
    return sorted(cells, key=lambda cell: (cell.folder not in needed, -(costs[cell.model, cell.column].seconds or 0.0)))
