"""Shows the plan of a table: its runs, how they stand, and their predicted time and memory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftsys.table.cells import Cell
from ftsys.table.forecast import Forecast, Slots
from ftsys.table.grid import Grid
from ftsys.table.state import CellState

HEADER = ("model", "task", "seeds", "state", "steps", "time a run", "memory")


def plan_lines(
    cells: Sequence[Cell],
    states: Mapping[Path, CellState],
    forecasts: Mapping[tuple[str, str], Forecast],
    slots: Slots,
) -> list[str]:
    """Return the lines of the plan: a row for each model and task, then the sums."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.column), []).append(cell)
    rows = [_row(members, states, forecasts[key]) for key, members in groups.items()]
    counts = Counter(state.name for state in states.values())
    stand = ", ".join(f"{count} {name}" for name, count in counts.items())
    seconds = wall_clock([_left(cell, states, forecasts) for cell in cells], slots.count)
    where = f"{slots.count} slot{'s' if slots.count > 1 else ''} ({slots.world.device}, {slots.threads} thread(s) each)"
    time = "time not known before a run has finished" if seconds is None else f"about {duration(seconds)} are left"
    return [*Grid(HEADER, rows).text(), "", f"{len(cells)} runs: {stand}; on {where}: {time}"]


def _row(members: Sequence[Cell], states: Mapping[Path, CellState], cost: Forecast) -> list[str]:
    counts = Counter(states[cell.folder].name for cell in members)
    steps = "?" if cost.steps is None else f"{cost.steps:,}"
    time = "?" if cost.seconds is None else duration(cost.seconds)
    memory = "?" if cost.memory is None else f"{cost.memory / 2**30:.2f} GiB"
    stand = ", ".join(f"{count} {name}" for name, count in counts.items())
    return [members[0].model, members[0].column, ranges([cell.seed for cell in members]), stand, steps, time, memory]


def _left(cell: Cell, states: Mapping[Path, CellState], forecasts: Mapping[tuple[str, str], Forecast]) -> float | None:
    return 0.0 if states[cell.folder].is_settled else forecasts[cell.model, cell.column].seconds


def wall_clock(seconds: Sequence[float | None], slots: int) -> float | None:
    """Return the time of runs in slots that each take the longest run that is left; None if one is not known."""
    ends = [0.0] * slots
    for one in sorted((one or 0.0 for one in seconds), reverse=True):
        ends[ends.index(min(ends))] += one
    return None if None in seconds else max(ends)


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers in short: "1..5" or "1, 3, 7"."""
    if len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}..{numbers[-1]}"
    return ", ".join(map(str, numbers))


def duration(seconds: float) -> str:
    """Return a time in words: 45 s, 2 min 30 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
