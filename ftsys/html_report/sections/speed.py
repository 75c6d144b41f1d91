"""Makes the section on speed: tokens per second, memory and imbalance over time, and the time of each phase."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ftsys.html_report.facts import RunFacts, is_number
from ftsys.html_report.figures.lines import Line, draw_lines, draw_stacked, thinned
from ftsys.html_report.figures.style import shortened
from ftsys.html_report.groups import TaskGroup, with_spread
from ftsys.html_report.parts import Figure, Note, Part, Section, Table, table
from ftsys.html_report.sections.learning import series_names
from ftsys.run_folder.report_facts import RankFacts

_LOGGED = (
    ("real_tokens_per_s", "Real tokens per second", "tokens/s", 1.0),
    ("padding_fraction", "Padding of rank 0", "share of the computed tokens", 1.0),
    ("memory_bytes", "Peak memory of rank 0", "GiB", 2.0**30),
    ("rank_imbalance", "Imbalance between the ranks", "largest rank above the mean", 1.0),
)
_PHASES = (
    ("prepare_s", "prepare"),
    ("startup_s", "start"),
    ("train_s", "train"),
    ("eval_s", "evaluate"),
    ("other", "other"),
)
_MOST_BARS = 24
_MOST_RANKS = 16


def speed_section(groups: Sequence[TaskGroup], points: int) -> Section:
    """Return the figures over time, by rank where the run has several, and the time of each phase."""
    runs = [run for group in groups for run in group.runs]
    parts = [figure for key in _LOGGED if (figure := _over_time(groups, *key, points))]
    parts += [figure for run in runs for figure in _by_rank(run)][:6]
    timed = [run for run in runs if _phases(run)]
    everything: list[Part] = [*parts, *([_time_of_phases(timed)] if timed else [])]
    return Section("Speed and memory", "speed", everything or [Note("No step has been logged.")])


def _over_time(
    groups: Sequence[TaskGroup], key: str, title: str, unit: str, scale: float, points: int
) -> Figure | None:
    whole = [line for group in groups for line in _lines_of(group, key, scale, named=len(groups) > 1)]
    if key == "rank_imbalance":
        whole = [line for line in whole if any(y for _, y in line.points)]  # a single rank has no imbalance
    if not whole:
        return None
    lines = [replace(line, points=thinned(line.points, points)) for line in whole]
    last = [line.points[-1][1] for line in whole]
    at_end = with_spread(last, 2 if max(last) > 10 else 4)
    text = f"{title} over optimizer steps, runs: {len(lines)}. At the last log line: {at_end}."
    rows = [
        [line.series, *(f(y for _, y in line.points) for f in (min, max)), line.points[-1][1]] for line in whole[:24]
    ]
    data = table(f"{title}, {unit}", ["run", "lowest", "highest", "last"], rows, 2)
    return Figure(f"speed-{key}", title, text, partial(draw_lines, lines, "step", unit, zero=True), data)


def _lines_of(group: TaskGroup, key: str, scale: float, named: bool) -> list[Line]:
    """Return a line for each run with all its values; their series are the tasks if there are several (`named`)."""
    names, lines = series_names(group), []
    for run in group.runs:
        values = [(float(line["step"]), line[key] / scale) for line in run.steps if is_number(line.get(key))]
        if values:
            lines.append(Line(group.title if named else names[run.name], values))
    return lines


_OF_RANKS = (
    (1, "tokens of each rank", "tokens in a log interval", 1.0),
    (2, "peak memory of each rank", "GiB", 2.0**30),
)
"""The columns of a rank's steps, with title, unit and scale; column 0 is the step."""


def _by_rank(run: RunFacts) -> list[Figure]:
    """Return tokens and memory of each rank over the steps of the last attempt, for a run of several ranks."""
    ranks = [rank for rank in run.ranks if rank.steps][:_MOST_RANKS]
    if len(ranks) < 2:
        return []
    data = _rank_table(ranks)
    return [_of_ranks(run.name, ranks, *column, data) for column in _OF_RANKS]


def _of_ranks(
    name: str, ranks: Sequence[RankFacts], column: int, title: str, unit: str, scale: float, data: Table
) -> Figure:
    lines = [Line(f"rank {rank.rank}", [(row[0], row[column] / scale) for row in rank.steps]) for rank in ranks]
    last = with_spread([line.points[-1][1] for line in lines], 2)
    text = f"{name}, {title} over steps: {len(ranks)} ranks, at the end {last}."
    draw = partial(draw_lines, lines, "step", unit, zero=True)
    return Figure(f"{name}-rank-{column}", f"{name}: {title}", text, draw, data)


def _rank_table(ranks: Sequence[RankFacts]) -> Table:
    rows = [[rank.rank, rank.host, rank.tokens, rank.computed_tokens, rank.steps[-1][2] / 2**30] for rank in ranks]
    return table(
        "Ranks of the last attempt", ["rank", "host", "real tokens", "computed tokens", "peak memory, GiB"], rows, 2
    )


def _phases(run: RunFacts) -> dict[str, float]:
    """Return the seconds of each phase; "other" is the rest, such as predictions and the saving of the model."""
    known = run.figures("timing")
    if "total_s" not in known:
        return {}
    spent = sum(known.get(key, 0.0) for key, _ in _PHASES)
    return {key: known.get(key, 0.0) for key, _ in _PHASES} | {"other": max(0.0, known["total_s"] - spent)}


def _time_of_phases(runs: Sequence[RunFacts]) -> Figure:
    shown, found = runs[:_MOST_BARS], [_phases(run) for run in runs]
    phases = [(name, [phase[key] for phase in found[:_MOST_BARS]]) for key, name in _PHASES]
    rows = [
        [run.name, *(phase[key] for key, _ in _PHASES), run.figures("timing")["total_s"]]
        for run, phase in zip(runs, found, strict=True)
    ]
    header = ["run", *(name for _, name in _PHASES), "total"]
    left = f" The figure has the first {_MOST_BARS} of {len(runs)} runs." if len(runs) > _MOST_BARS else ""
    total = with_spread([float(run.figures("timing")["total_s"]) for run in runs], 1)
    text = (
        f"Seconds of each phase of the last attempt; a run took {total} s. The start ends with the first step; "
        f"evaluations are those while training.{left}"
    )
    names = [shortened(run.name, 26) for run in shown]
    return Figure(
        "speed-phases",
        "Time by phase",
        text,
        partial(draw_stacked, names, phases, "seconds"),
        table("Seconds by phase", header, rows, 1),
    )
