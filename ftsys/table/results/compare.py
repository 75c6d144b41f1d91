"""Compares two models of a table on each task, and says in a sentence what the numbers show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError, RunFolderError
from ftsys.metrics import METRICS
from ftsys.run_folder.layout import predictions_file
from ftsys.run_folder.predictions import LabelledPredictions, read_labelled
from ftsys.table.cells import slug
from ftsys.table.results.bootstrap import Difference, paired_bootstrap
from ftsys.table.results.collect import Entry
from ftsys.table.results.resampled import resampled
from ftsys.table.results.scores import SHARES

EVIDENCE = 0.05
"""Below this p value a difference counts as evidence."""


@dataclass(frozen=True)
class Comparison:
    """Two models on a task and a split. `difference` is None where they cannot be compared; `sentence` says why."""

    task: str
    split: str
    metric: str
    a: str
    b: str
    seeds: tuple[int, ...]
    examples: int
    difference: Difference | None
    sentence: str


def rows_of(pair: Sequence[str], rows: Iterable[str]) -> tuple[str, str]:
    """Return the two rows that --compare names, by a row's name or as --models names it.

    Raises ConfigError for a name that is no row, and for two names of one.
    """
    models = tuple(dict.fromkeys(rows))
    a, b = (name if name in models or slug(name) not in models else slug(name) for name in pair)
    ConfigError.raise_if(
        f"--compare {name!r} is no model of the table: {did_you_mean(name, models)}."
        for name in (a, b)
        if name not in models
    )
    if a == b:
        raise ConfigError(f"--compare {a!r} {b!r} names one model twice: name two of {', '.join(models)}.")
    return a, b


def compare(entries: Sequence[Entry], a: str, b: str) -> list[Comparison]:
    """Compare models A and B on every task that both have, by each of its metrics.

    Predictions that do not fit are told in the sentence. Raises ConfigError for a name that is no model of the table.
    """
    a, b = rows_of((a, b), (entry.model for entry in entries))
    found = {(entry.model, entry.column): entry for entry in entries}
    columns = dict.fromkeys(entry.column for entry in entries)
    return [one for column in columns for one in _told(found[a, column], found[b, column])]


def _told(a: Entry, b: Entry) -> list[Comparison]:
    """Compare two entries, or say why their predictions cannot be: the table is there without that."""
    try:
        return _compare(a, b)
    except RunFolderError as error:
        return [_not_comparable(a, b, " ".join(str(error).rstrip(".").split()))]


def _compare(a: Entry, b: Entry) -> list[Comparison]:
    seeds = [one.cell.seed for one in a.seeds if one.cell.seed in {other.cell.seed for other in b.seeds}]
    if not seeds:
        return [_not_comparable(a, b, "no seed is finished for both")]
    splits = {result.split for entry in (a, b) for result in entry.seeds if result.cell.seed in seeds}
    if len(splits) > 1 or "" in splits:
        return [_not_comparable(a, b, "not all of their runs have a labelled validation split")]
    (split,) = splits
    sides = _predictions(a, seeds, split), _predictions(b, seeds, split)
    if not np.array_equal(sides[0].labels, sides[1].labels):
        return [_not_comparable(a, b, "their validation examples differ")]
    return [_by_metric(name, a, b, seeds, split, sides) for name in a.task.metrics]


def _not_comparable(a: Entry, b: Entry, why: str) -> Comparison:
    sentence = f"On {a.column}, {a.model} and {b.model} cannot be compared: {why}."
    return Comparison(a.column, "", "", a.model, b.model, (), 0, None, sentence)


class _Side(NamedTuple):
    """The predictions of a model's runs, one a seed, and the labels of their examples in the order of their ids."""

    runs: list[LabelledPredictions]
    labels: npt.NDArray[Any]

    def judged(self, metric: str) -> npt.NDArray[Any]:
        """Return what the metric takes of all runs: (S, N), or (S, N, C) of several labels."""
        return np.stack([run.judged(METRICS[metric].of_logits) for run in self.runs])


def _by_metric(
    name: str, a: Entry, b: Entry, seeds: Sequence[int], split: str, sides: tuple[_Side, _Side]
) -> Comparison:
    labels_N = sides[0].labels
    difference = paired_bootstrap(sides[0].judged(name), sides[1].judged(name), labels_N, resampled(name))
    sentence = sentence_of(a.column, split, name, a.model, b.model, seeds, len(labels_N), difference)
    return Comparison(a.column, split, name, a.model, b.model, tuple(seeds), len(labels_N), difference, sentence)


def _predictions(entry: Entry, seeds: Sequence[int], split: str) -> _Side:
    """Read the predictions of each seed. Raises RunFolderError."""
    runs, labels = [], None
    for result in (one for one in entry.seeds if one.cell.seed in seeds):
        path = predictions_file(result.cell.folder, split)
        found = read_labelled(path, entry.task).ordered()
        if found.labels is None or (labels is not None and not np.array_equal(labels, found.labels)):
            raise RunFolderError(f"{str(path)!r} has not the examples of the other seeds: start its run anew.")
        labels = found.labels
        runs.append(found)
    assert labels is not None
    return _Side(runs, labels)


def sentence_of(
    task: str, split: str, metric: str, a: str, b: str, seeds: Sequence[int], examples: int, found: Difference | None
) -> str:
    """Return the sentence that a careful reader may take from a comparison."""
    place = f"On {task} ({split}, {examples:,} examples) over {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    name = metric.replace("_", " ")
    if found is None:
        return f"{place}, {name} of {a} or {b} is undefined, so they cannot be compared."
    interval = (
        f"(difference: 95% interval {_points(metric, found.low)} to {_points(metric, found.high)}, p = {found.p:.3f})"
    )
    one_seed = " One seed says nothing about the spread between seeds." if len(seeds) == 1 else ""
    return f"{place}, {_stand(metric, a, b, found)} {interval}: {_verdict(metric, a, b, found)}.{one_seed}"


def _stand(metric: str, a: str, b: str, found: Difference) -> str:
    """Return how A stands to B: "A is 0.80 f1 points above B"."""
    name = metric.replace("_", " ")
    if found.value == 0:
        return f"{a} and {b} have the same {name}"
    size = f"{_points(metric, abs(found.value), signed=False)} {name}{' points' if metric in SHARES else ''}"
    return f"{a} is {size} {'above' if found.value > 0 else 'below'} {b}"


def _points(metric: str, value: float, signed: bool = True) -> str:
    number = 100 * value if metric in SHARES else value
    return f"{number:{'+' if signed else ''}.2f}"


def _verdict(metric: str, a: str, b: str, found: Difference) -> str:
    if found.p >= EVIDENCE:
        return "no evidence of a difference"
    better = (found.value > 0) == METRICS[metric].greater_is_better
    return f"evidence that {a if better else b} is better on these examples"
