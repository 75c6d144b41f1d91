"""Makes the learning curves of a task, with all seeds, and its metrics by epoch."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ftsys.html_report.facts import RunFacts, is_metric, is_number
from ftsys.html_report.figures.lines import Line, draw_lines, thinned
from ftsys.html_report.groups import TaskGroup, spread_cell, with_spread
from ftsys.html_report.parts import Cell, Figure, Note, Part, Section, Table, cell, table, words

POINTS_OF_A_PAGE = 11_000
"""Points of all lines of a page together: they decide its size."""

_MOST_SEEDS_BY_COLOR = 5
_LONGEST_DATA = 24


def learning_section(group: TaskGroup, anchor: str, points: int) -> Section:
    """Return training loss and each metric of each split over the epochs. `points`: the most points of a line."""
    parts: list[Part] = []
    losses = _lines(group, lambda run: run.steps, "loss", points)
    if losses:
        parts.append(_figure(group, f"{anchor}-train-loss", "training loss", losses))
    for split, name in _evaluated(group):
        found = _lines(group, partial(_of_split, split=split), name, points)
        if found:
            title = f"{words(name)} on {split}"
            parts.append(_figure(group, f"{anchor}-{split}-{name}", title, found, markers=True))
    parts += [_by_epoch(group)] if any(run.evaluations for run in group.runs) else []
    return Section("Learning curves", f"{anchor}-learning", parts or [Note("No step has been logged.")])


def _of_split(run: RunFacts, split: str) -> Sequence[Mapping[str, Any]]:
    return [line for line in run.evaluations if line["split"] == split]


def _evaluated(group: TaskGroup) -> list[tuple[str, str]]:
    """Return the pairs of split and metric that were logged, the task's own metrics first, the loss last."""
    pairs = dict.fromkeys(
        (str(line["split"]), name) for run in group.runs for line in run.evaluations for name in line if is_metric(name)
    )
    order = {name: number for number, name in enumerate(group.task.metrics)}
    return sorted(pairs, key=lambda pair: (order.get(pair[1], len(order)), pair[1] == "loss"))[:8]


def series_names(group: TaskGroup) -> dict[str, str]:
    """Return the name of each run's series: its variant, or its seed if there are one variant and few seeds."""
    if len(group.variants) == 1 and 1 < len(group.runs) <= _MOST_SEEDS_BY_COLOR and not group.repeated:
        return {run.name: f"seed {run.seed}" if run.seed is not None else run.name for run in group.runs}
    return {run.name: variant.name for variant in group.variants for run in variant.runs}


def _lines(
    group: TaskGroup, lines_of: Callable[[RunFacts], Sequence[Mapping[str, Any]]], name: str, points: int
) -> list[Line]:
    names, found = series_names(group), []
    for run in (run for variant in group.variants for run in variant.seeds):
        values = [(_epoch(line), float(line[name])) for line in lines_of(run) if is_number(line.get(name))]
        if values:
            found.append(Line(names[run.name], thinned(values, points)))
    return found


def _epoch(line: Mapping[str, Any]) -> float:
    epoch = line.get("epoch")
    return float(epoch) if is_number(epoch) else float(line["step"])


def _figure(group: TaskGroup, name: str, title: str, lines: list[Line], markers: bool = False) -> Figure:
    first = [line.points[0][1] for line in lines]
    last = [line.points[-1][1] for line in lines]
    series = list(dict.fromkeys(line.series for line in lines))
    several = (
        f"{len(lines)} runs ({', '.join(series[:6])}{', …' if len(series) > 6 else ''})"
        if len(lines) > 1
        else "one run"
    )
    text = f"{title.capitalize()} over epochs, {several}: from {with_spread(first)} to {with_spread(last)}."
    draw = partial(draw_lines, lines, "epoch", title, markers)
    return Figure(name, f"{group.title}: {title}", text, draw, _data(lines))


def _data(lines: Sequence[Line]) -> Table:
    most = 12 if len(lines) <= 12 else 3  # the table of many runs would be larger than their figure
    rows = [[line.series, x, y] for line in lines[:most] for x, y in thinned(line.points, _LONGEST_DATA)]
    left_out = f" The first {most} of {len(lines)} lines." if len(lines) > most else ""
    return table(f"Values of the figure.{left_out}", ["line", "epoch", "value"], rows)


def _by_epoch(group: TaskGroup) -> Table:
    """Return the metrics at each epoch: mean and standard deviation over the runs of each variant."""
    pairs = _evaluated(group)
    rows = []
    for variant in group.variants:
        epochs: dict[float, list[Mapping[str, Any]]] = {}
        for line in (line for run in variant.seeds for line in run.evaluations):
            epochs.setdefault(_epoch(line), []).append(line)
        digits = 2 if len({round(epoch, 2) for epoch in epochs}) == len(epochs) else 4
        for epoch, lines in sorted(epochs.items())[-_LONGEST_DATA:]:
            rows.append([variant.name, cell(epoch, digits), *(_mean(lines, split, name) for split, name in pairs)])
    splits = list(dict.fromkeys(split for split, _ in pairs))
    several = len(splits) > 1
    header = ["model", "epoch", *(words(name) + (f" ({split})" if several else "") for split, name in pairs)]
    where = "" if several or not splits else f" on {splits[0]}"
    return table(f"Metrics by epoch{where}: mean ± standard deviation over the seeds", header, rows)


def _mean(lines: Sequence[Mapping[str, Any]], split: str, name: str) -> Cell:
    values = [float(line[name]) for line in lines if line["split"] == split and is_number(line.get(name))]
    return spread_cell(values)
