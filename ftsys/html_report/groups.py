"""Groups runs by task, because no plot may mix two tasks, and by variant, which is everything but the seed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftsys.html_report.facts import RunFacts, flat_config
from ftsys.html_report.parts import Cell
from ftsys.report.runs import each_seed_once
from ftsys.run_folder.layout import for_all_seeds
from ftsys.tasks import Task

_SAME_RUN = (
    *("output_dir", "train.seed", "data.store", "launch.nodes", "launch.gpus_per_node", "launch.backend"),
    *("trainer.report_to", "trainer.run_name", "trainer.logging_steps"),
)
"""Keys that may differ between the seeds of one variant."""


@dataclass(frozen=True)
class Variant:
    """Runs that differ in nothing but their seed: one model with one recipe."""

    name: str
    runs: Sequence[RunFacts]

    @property
    def seeds(self) -> list[RunFacts]:
        """One run of each seed: what means, deviations and figures of metrics are made of."""
        return each_seed_once(self.runs)


@dataclass(frozen=True)
class TaskGroup:
    """The runs of one task, by variant. `title` tells it from other tasks of the same name."""

    title: str
    task: Task
    variants: Sequence[Variant]

    @property
    def runs(self) -> list[RunFacts]:
        """All runs of the task."""
        return [run for variant in self.variants for run in variant.runs]

    @property
    def repeated(self) -> int:
        """The number of runs that `Variant.seeds` leaves out."""
        return len(self.runs) - sum(len(variant.seeds) for variant in self.variants)


def groups_of(runs: Sequence[RunFacts]) -> list[TaskGroup]:
    """Return the runs by task, in the order of their first appearance.

    Tasks of one name with other columns or labels are different tasks.
    """
    by_task: dict[Task, list[RunFacts]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(run)
    names = [task.name for task in by_task]
    return [
        TaskGroup(_title(task, names, number), task, _variants(members))
        for number, (task, members) in enumerate(by_task.items(), start=1)
    ]


def _title(task: Task, names: Sequence[str], number: int) -> str:
    return (
        task.name
        if names.count(task.name) == 1
        else f"{task.name} (task {number}: {', '.join(task.labels) or 'no labels'})"
    )


def _variants(runs: Sequence[RunFacts]) -> list[Variant]:
    """Group the runs of a task by their configuration without the seed."""
    by_config: dict[tuple[str, str], list[RunFacts]] = {}
    for run in runs:
        by_config.setdefault((run.model, repr(_recipe(run))), []).append(run)
    members = list(by_config.values())
    names = _names([group[0] for group in members])
    return [Variant(name, group) for name, group in zip(names, members, strict=True)]


def _recipe(run: RunFacts) -> dict[str, object]:
    found = {key: value for key, value in flat_config(run.run).items() if key not in _SAME_RUN}
    if "model.name" in found:
        found["model.name"] = for_all_seeds(str(found["model.name"]), run.seed)
    return found


def _names(firsts: Sequence[RunFacts]) -> list[str]:
    """Name each variant by its model, if there are several, and by the values that differ within this model."""
    names, several = [], len({run.model for run in firsts}) > 1
    for run in firsts:
        rivals = [_recipe(other) for other in firsts if other.model == run.model]
        differing = [key for key in differing_keys(rivals) if key != "model.name"]
        values = [f"{key.rpartition('.')[2]}={_recipe(run).get(key)}" for key in differing[:3]]
        names.append(", ".join([*([run.model] if several or not values else []), *values]))
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, start=1)]


def differing_keys(configs: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the keys whose values are not the same in all configurations."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and the standard deviation of a sample; None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def spread_cell(values: Sequence[float], digits: int = 4) -> Cell:
    """Return a cell of `with_spread` that is sorted by the mean; an empty one without values."""
    return Cell(with_spread(values, digits), mean_and_deviation(values)[0]) if values else Cell("")


def with_spread(values: Sequence[float], digits: int = 4) -> str:
    """Return "mean ± standard deviation", or the value alone."""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation is not None else "")
