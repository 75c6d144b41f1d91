"""Reads the finished cells of a table, and sums them up by model and task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ftsys.metrics import METRICS
from ftsys.run_folder.layout import predictions_file
from ftsys.run_folder.predictions import read_labelled
from ftsys.run_folder.results import read_results
from ftsys.table.cells import Cell
from ftsys.table.results.scores import AVERAGED, average_name, in_points, named_metrics, task_score, why_diverged
from ftsys.table.state import CellState
from ftsys.tasks import Task


@dataclass(frozen=True)
class SeedResult:
    """The results of one finished cell. `diverged` is a reason, or ""."""

    cell: Cell
    metrics: Mapping[str, float | None]
    diverged: str
    timing: Mapping[str, Any]
    throughput: Mapping[str, Any]
    energy: Mapping[str, Any]
    split: str = ""
    """The first evaluation split with labels; "" for a run without one."""
    store: str = ""
    """The fingerprint of the store that the run was trained on."""

    @property
    def score(self) -> float | None:
        """The task's score; None if a metric is undefined."""
        return task_score(self.cell.task, self.metrics)


@dataclass(frozen=True)
class Spread:
    """A value over seeds. `deviation` is the sample standard deviation, None for one seed."""

    mean: float
    deviation: float | None
    best: float
    best_seed: int
    count: int


@dataclass(frozen=True)
class Entry:
    """The results of a model on a task: those of each finished seed, and the state of every other one."""

    model: str
    column: str
    task: Task
    seeds: tuple[SeedResult, ...]
    others: Mapping[int, CellState]
    first_rows: Mapping[str, int]
    """Number of rows of each split that was cut off."""
    start: str = ""
    """The task whose model the runs started from; "" for none."""

    @property
    def plain_column(self) -> str:
        """The column's name, without the task whose model its runs started from."""
        return self.column.removesuffix(f"-from-{self.start}") if self.start else self.column

    @property
    def averaged(self) -> str:
        """The task of the GLUE average that the column is; "" for others, also in a file of such a name.

        A task whose score is not in points, as with an error among its metrics, is in no average.
        """
        name = self.plain_column
        return name if name in AVERAGED and self.task.name == name and in_points(self.task) else ""

    @cached_property
    def metrics(self) -> dict[str, Spread | None]:
        """Each metric over the seeds; None where it is undefined for all of them."""
        names = dict.fromkeys(name for result in self.seeds for name in result.metrics)
        return {name: self._over_seeds([result.metrics.get(name) for result in self.seeds], name) for name in names}

    @cached_property
    def score(self) -> Spread | None:
        """The task's score over the seeds."""
        return self._over_seeds([result.score for result in self.seeds], self.task.metrics[0])

    @property
    def diverged(self) -> dict[int, str]:
        """The reason for each seed that diverged. Such seeds are part of the means."""
        return {result.cell.seed: result.diverged for result in self.seeds if result.diverged}

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores of the seeds: more than one if the data has changed between their runs."""
        return tuple(dict.fromkeys(result.store for result in self.seeds if result.store))

    def _over_seeds(self, values: Sequence[float | None], metric: str) -> Spread | None:
        seeds = [result.cell.seed for result in self.seeds]
        known = {seed: value for seed, value in zip(seeds, values, strict=True) if value is not None}
        return spread(known, METRICS[metric.partition(" ")[0]].greater_is_better) if known else None


def spread(values: Mapping[int, float], greater_is_better: bool = True) -> Spread:
    """Sum up a value for each seed."""
    best = (max if greater_is_better else min)(values, key=lambda seed: values[seed])
    deviation = stdev(values.values()) if len(values) > 1 else None
    return Spread(fmean(values.values()), deviation, values[best], best, len(values))


def collect(cells: Sequence[Cell], states: Mapping[Path, CellState]) -> list[Entry]:
    """Read all finished cells; returns an entry for each model and task. Raises RunFolderError for a damaged file."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.column), []).append(cell)
    return [_entry(members, states) for members in groups.values()]


def _entry(members: Sequence[Cell], states: Mapping[Path, CellState]) -> Entry:
    done = [cell for cell in members if states[cell.folder].name == "done"]
    others = {cell.seed: states[cell.folder] for cell in members if cell not in done}
    first = members[0]
    cut = first.run.data.first_rows
    return Entry(first.model, first.column, first.task, tuple(map(_result, done)), others, cut, first.start)


def _result(cell: Cell) -> SeedResult:
    results = read_results(cell.folder) or {}
    split = next((name for name in cell.task.evaluation_splits if name in results.get("metrics", {})), None)
    metrics = named_metrics(cell.task, results)
    diverged = ""
    if split and metrics:
        diverged = why_diverged(cell.task, read_labelled(predictions_file(cell.folder, split), cell.task))
    timing, throughput, energy = (results.get(name, {}) for name in ("timing", "throughput", "energy"))
    return SeedResult(
        cell, metrics, diverged, timing, throughput, energy, split or "", results.get("store_fingerprint", "")
    )


def averages(entries: Sequence[Entry]) -> tuple[str, dict[str, Spread | None]]:
    """Return the average's name, and its value over seeds for each model: None where a task or a metric is missing.

    Only GLUE's tasks count, and only if there are two or more; the name is "" otherwise.
    """
    glue = [entry for entry in entries if entry.averaged]
    tasks = list(dict.fromkeys(entry.averaged for entry in glue))
    if len(tasks) < 2:
        return "", {}
    name = average_name(tasks)
    models = dict.fromkeys(entry.model for entry in entries)
    return name, {model: _average([entry for entry in glue if entry.model == model], len(tasks)) for model in models}


def _average(entries: Sequence[Entry], tasks: int) -> Spread | None:
    """Average the tasks for each seed that has all of them; None for a model without one of the average's tasks."""
    if len(entries) < tasks or any(entry.others for entry in entries):
        return None
    scores = [{result.cell.seed: result.score for result in entry.seeds} for entry in entries]
    values: dict[int, float] = {}
    for seed in scores[0]:
        found = [value for one in scores if (value := one.get(seed)) is not None]
        if len(found) == len(scores):
            values[seed] = fmean(found)
    return spread(values) if values else None
