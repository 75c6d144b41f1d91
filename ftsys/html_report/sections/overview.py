"""Makes the summary and the table of runs."""

import time
from collections.abc import Sequence

from ftsys.html_report.facts import RunFacts
from ftsys.html_report.groups import TaskGroup, Variant, mean_and_deviation, with_spread
from ftsys.html_report.parts import Cell, Note, Part, Section, Table, cell, table, words
from ftsys.metrics import METRICS

_ENERGY = "energy (Wh)"
_MOST_SENTENCES = 3
"""Tasks that the summary names; of more, the first table has the scores."""


def summary(groups: Sequence[TaskGroup]) -> str:
    """Return the sentences at the head of the page: how many runs of what, and the best variant of a few tasks."""
    runs = [run for group in groups for run in group.runs]
    models = list(dict.fromkeys(run.model for run in runs))
    which = models[0] if len(models) == 1 and models[0] else _count(len(models), "model")
    what = f"{_count(len(runs), 'run')} of {_count(len(groups), 'task')} with {which}"
    unfinished = sum(not run.finished for run in runs)
    state = f"{unfinished} unfinished" if unfinished else "finished" if len(runs) == 1 else "all finished"
    best = [text for group in groups if (text := _best_of(group))]
    return " ".join([f"{what}, {state}.", *(best if len(best) <= _MOST_SENTENCES else [])])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _best_of(group: TaskGroup) -> str:
    """Return a sentence on the variant with the best mean of the task's first metric; empty without finished runs."""
    metric = first_metric(group)
    scores = {variant.name: found for variant in group.variants if (found := scores_of(variant, metric))}
    if not scores:
        return ""
    sign = 1 if metric not in METRICS or METRICS[metric].greater_is_better else -1
    name = max(scores, key=lambda one: sign * mean_and_deviation(scores[one])[0])
    found = scores[name]
    seeds = f" over {len(found)} seeds" if len(found) > 1 else ""
    best = f"best of {len(scores)} is {name}" if len(scores) > 1 else name
    return f"{group.title}: {best} with {words(metric)} {with_spread(found)}{seeds}."


def first_metric(group: TaskGroup) -> str:
    """Return the metric that selects the best checkpoint of the task; a metric of the runs if the task is unknown."""
    if group.task.metrics:
        return group.task.metrics[0]
    names = (name for run in group.runs for found in run.metrics().values() for name in found if name != "loss")
    return next(names, "loss")


def scores_of(variant: Variant, metric: str) -> list[float]:
    """Return the metric of each seed's finished run, on its first split that has it."""
    scores = []
    for run in variant.seeds:
        found = (metrics[metric] for metrics in run.metrics().values() if metric in metrics)
        score = next(found, None) if run.finished else None
        scores += [] if score is None else [float(score)]
    return scores


def overview_section(groups: Sequence[TaskGroup]) -> Section:
    """Return the scores over seeds and a table of runs for each task, with notes on those that are not finished."""
    parts: list[Part] = [*_notes([run for group in groups for run in group.runs])]
    parts += [Note(_repeated(group)) for group in groups if group.repeated]
    several = any(len(variant.seeds) > 1 for group in groups for variant in group.variants)
    if several or len(groups) > _MOST_SENTENCES:
        parts.append(_spread_table(groups))
    return Section("Runs", "runs", [*parts, *map(_runs_of, groups)])


def _runs_of(group: TaskGroup) -> Table:
    names = _metric_names(group)
    header = ["run", "model", "seed", "state", *map(words, names), "steps", "tokens/s", "seconds", _ENERGY]
    rows = [_row(run, names) for run in group.runs]
    return _without_needless(table(f"{group.title}: metrics of the first split that has them", header, rows))


def _without_needless(runs: Table) -> Table:
    """Leave out the model where all rows have the same one, and energy that nobody told."""
    values = [{row[column].text for row in runs.rows} for column in range(len(runs.header))]
    kept = [
        column
        for column, name in enumerate(runs.header)
        if (name != "model" or len(values[column]) > 1) and (name != _ENERGY or any(values[column]))
    ]
    rows = [[row[column] for column in kept] for row in runs.rows]
    return Table(runs.caption, [runs.header[column] for column in kept], rows)


def _notes(runs: Sequence[RunFacts]) -> list[Note]:
    notes = [Note(_unfinished(run), "warning") for run in runs if not run.finished]
    notes += [Note(problem, "warning") for run in runs for problem in run.problems]
    extra = len(notes) - 20
    return notes[:20] + ([Note(f"And {extra} more remarks of this kind.", "warning")] if extra > 0 else [])


def _unfinished(run: RunFacts) -> str:
    if run.state == "done":
        return f"{run.name} has ended, but has no results that can be read. The page shows what there is."
    total = run.plan.get("total_steps")
    of = f" of {total:,}" if isinstance(total, int) else ""
    reason = f": {str(run.status['reason']).rstrip('.')}" if run.status.get("reason") else ""
    return f"{run.name} is unfinished ({run.state}, step {run.step:,}{of}{reason}). The page shows what there is."


def _repeated(group: TaskGroup) -> str:
    """Return a sentence on the runs that are in no mean, because they repeat a seed."""
    verb = "has" if group.repeated == 1 else "have"
    return (
        f"{group.title}: {_count(group.repeated, 'run')} {verb} the settings and the seed of another one. Means, "
        "deviations and figures of metrics take one finished run of each seed."
    )


def _metric_names(group: TaskGroup) -> list[str]:
    found = {name for run in group.runs for metrics in run.metrics().values() for name in metrics if name != "loss"}
    ordered = [name for name in group.task.metrics if name in found]
    return [*ordered, *sorted(found - set(ordered))]


def _row(run: RunFacts, names: Sequence[str]) -> list[Cell]:
    splits = list(run.metrics().values())
    scores = [next((split[name] for split in splits if name in split), None) for name in names]
    speed = run.figures("throughput").get("real_tokens_per_s") or None  # 0 where the last attempt trained no step
    seconds = run.figures("timing").get("total_s")
    joules = run.figures("energy").get("joules")
    known = [cell(run.name), cell(run.model), cell(run.seed), cell(run.state)]
    energy = cell(None if joules is None else joules / 3600, 2)
    return [*known, *map(cell, scores), cell(run.step), cell(speed, 0), cell(seconds, 1), energy]


def _spread_table(groups: Sequence[TaskGroup]) -> Part:
    """Return a row for each variant: mean, standard deviation and best of the first metric over its finished seeds."""
    rows = []
    for group in groups:
        metric = first_metric(group)
        for variant in group.variants:
            scores = scores_of(variant, metric)
            mean, deviation = mean_and_deviation(scores) if scores else (None, None)
            best = max(scores) if scores else None
            rows.append([group.title, variant.name, words(metric), mean, deviation, best, len(scores)])
    header = ["task", "model", "metric", "mean", "deviation", "highest", "seeds"]
    return _without_needless(table("Spread over the seeds: standard deviation of a sample", header, rows))


def made_at() -> str:
    """Return the time of now in UTC, for the foot of the page."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
