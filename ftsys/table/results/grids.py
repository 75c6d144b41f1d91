"""Lays out the results of a table: models x tasks, every metric, and the times. Times have a grid of their own."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from ftsys.table.dry_run import duration, ranges
from ftsys.table.grid import Grid
from ftsys.table.results.collect import Entry, Spread, averages
from ftsys.table.results.scores import AVERAGED, in_points

MARK = "!"
"""Marks a score with diverged seeds among its seeds."""

NOT_TOLD = "not told"
"""Stands for the energy of runs on devices that do not count it."""

COUNTED = {
    "nvml": "Energy: of the GPUs while the run trained, with all else on them (NVML).",
    "rapl": "Energy: of the CPUs and the memory of the whole machine while the run trained, with all else on it, such "
    "as other runs of the table (RAPL).",
}
"""What the energy of a run is, by the counter in its results."""


def overview(entries: Sequence[Entry]) -> Grid:
    """Return models x tasks: the score x 100, mean ± standard deviation over seeds."""
    columns = list(dict.fromkeys(entry.column for entry in entries))
    models = list(dict.fromkeys(entry.model for entry in entries))
    by_key = {(entry.model, entry.column): entry for entry in entries}
    name, means = averages(entries)
    rows = [
        [
            model,
            *(_score(by_key[model, column]) for column in columns),
            *([_plus_minus(means.get(model))] if name else []),
        ]
        for model in models
    ]
    return Grid(["model", *columns, *([name] if name else [])], rows, left=1)


def _score(entry: Entry) -> str:
    planned = len(entry.seeds) + len(entry.others)
    part = f" ({len(entry.seeds)} of {planned})" if entry.others else ""
    scale, digits = (100.0, 1) if in_points(entry.task) else (1.0, 4)
    return _plus_minus(entry.score, scale, digits) + (MARK if entry.diverged else "") + part


def _plus_minus(value: Spread | None, scale: float = 100.0, digits: int = 1) -> str:
    if value is None:
        return "-"
    deviation = "" if value.deviation is None else f" ± {scale * value.deviation:.{digits}f}"
    return f"{scale * value.mean:.{digits}f}{deviation}"


def details(entries: Sequence[Entry]) -> Grid:
    """Return a row for each model, task and metric."""
    header = ["model", "task", "metric", "mean", "deviation", "best", "best seed", "seeds", "diverged"]
    return Grid(header, [row for entry in entries for row in _details(entry)], left=3)


def _details(entry: Entry) -> Iterator[list[str]]:
    for name, value in entry.metrics.items():
        figures = ["null", "", "", ""] if value is None else _figures(value)
        seeds = ranges([result.cell.seed for result in entry.seeds])
        yield [entry.model, entry.column, name.replace("_", " "), *figures, seeds, ", ".join(map(str, entry.diverged))]


def _figures(value: Spread) -> list[str]:
    deviation = "" if value.deviation is None else f"{value.deviation:.4f}"
    return [f"{value.mean:.4f}", deviation, f"{value.best:.4f}", str(value.best_seed)]


def times(entries: Sequence[Entry]) -> Grid:
    """Return the means over seeds of a run's time, training time, real tokens per second and energy of its training."""
    header = ["model", "task", "time of a run", "of its training", "real tokens/s", "energy (Wh)"]
    rows = [
        [
            *(entry.model, entry.column),
            *(_time(_mean([result.timing.get(key) for result in entry.seeds])) for key in ("total_s", "train_s")),
            _count(_mean([result.throughput.get("real_tokens_per_s") for result in entry.seeds])),
            _energy(entry),
        ]
        for entry in entries
    ]
    return Grid(header, rows)


def _energy(entry: Entry) -> str:
    """Return the mean of the seeds whose devices told it, in Wh; "" without a finished seed."""
    joules = _mean([result.energy.get("joules") for result in entry.seeds])
    return "" if not entry.seeds else NOT_TOLD if joules is None else f"{joules / 3600:,.2f}"


def notes_on_times(entries: Sequence[Entry]) -> list[str]:
    """Return remarks on the grid of times: whose energy it is, or why it is not told."""
    readings = [result.energy for entry in entries for result in entry.seeds]
    whose = [text for counter, text in COUNTED.items() if any(one.get("counter") == counter for one in readings)]
    reasons = dict.fromkeys(str(one["not_told"]) for one in readings if one.get("not_told"))
    return [*whose, *(f"Energy that is not told: {reason}." for reason in reasons)]


def _mean(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return fmean(known) if known else None


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def notes(entries: Sequence[Entry]) -> list[str]:
    """Return remarks: on the scores, cut tasks, other tasks' models, diverged seeds, and runs that are not finished."""
    found = [
        "Scores x 100 on the validation split: mean ± sample standard deviation over seeds. A task's score is the "
        "mean of its metrics, as on the GLUE leaderboard."
    ]
    for entry in entries:
        place = f"{entry.model}, {entry.column}"
        found += _on_score(entry)
        found += [
            f"{entry.column}: only the first {rows:,} rows of {split}." for split, rows in entry.first_rows.items()
        ]
        found += [f"{entry.column}: starts from the {entry.start} model of the same seed."] if entry.start else []
        if len(entry.stores) > 1:
            stores = ", ".join(store[:16] for store in entry.stores)
            found.append(f"{place}: the data has changed between the runs of its seeds (stores {stores}).")
        found += [f"{MARK} {place}, seed {seed} diverged: {why}." for seed, why in entry.diverged.items()]
        for seed, state in entry.others.items():
            found.append(f"{place}, seed {seed}: {state.name}{f': {state.reason}' if state.reason else ''}")
    name, means = averages(entries)
    found += [
        f"{model} has no {name}: a run is not finished, a metric is undefined, or a score is not in points."
        for model, mean in means.items()
        if mean is None
    ]
    return list(dict.fromkeys(found))


def _on_score(entry: Entry) -> list[str]:
    """Return a remark for a task whose score is not the mean of its metrics, or is not told x 100."""
    first, points = entry.task.metrics[0].replace("_", " "), in_points(entry.task)
    if points and (len(entry.task.metrics) == 1 or not entry.task.multi_label):
        return []
    told = "" if points else ", not x 100, and in no average" if entry.task.name in AVERAGED else ", not x 100"
    return [f"{entry.column}: its score is its first metric, {first}{told}."]
