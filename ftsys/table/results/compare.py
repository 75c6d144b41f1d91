"""Compares two models of a table on each task, and says in a sentence what the numbers show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError, RunFolderError
from ftsys.metrics import METRICS
from ftsys.run_folder.layout import predictions_file
from ftsys.run_folder.predictions import read_labelled
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


def compare(entries: Sequence[Entry], a: str, b: str) -> list[Comparison]:
    """Compare models A and B on every task that both have, by each of its metrics.

    Raises ConfigError for a name that is no model of the table, and RunFolderError for predictions that do not fit.
    """
    models = dict.fromkeys(entry.model for entry in entries)
    ConfigError.raise_if(
        f"--compare {name!r} is no model of the table: {did_you_mean(name, models)}."
        for name in (a, b)
        if name not in models
    )
    if a == b:
        raise ConfigError(f"--compare {a!r} {b!r} names one model twice: name two of {', '.join(models)}.")
    found = {(entry.model, entry.column): entry for entry in entries}
    columns = dict.fromkeys(entry.column for entry in entries)
    return [one for column in columns for one in _compare(found[a, column], found[b, column])]


def _compare(a: Entry, b: Entry) -> list[Comparison]:
    seeds = [one.cell.seed for one in a.seeds if one.cell.seed in {other.cell.seed for other in b.seeds}]
    if not seeds:
        return [_not_comparable(a, b, "no seed is finished for both")]
    split = a.task.evaluation_splits[0]
    mine, others = _predictions(a, seeds, split), _predictions(b, seeds, split)
    if not np.array_equal(mine.labels, others.labels):
        return [_not_comparable(a, b, "their validation examples differ")]
    return [_by_metric(name, a, b, seeds, split, (mine, others)) for name in a.task.metrics]


def _not_comparable(a: Entry, b: Entry, why: str) -> Comparison:
    sentence = f"On {a.column}, {a.model} and {b.model} cannot be compared: {why}."
    return Comparison(a.column, a.task.evaluation_splits[0], "", a.model, b.model, (), 0, None, sentence)


def _by_metric(
    name: str,
    a: Entry,
    b: Entry,
    seeds: Sequence[int],
    split: str,
    predictions: "tuple[_OfSeeds, _OfSeeds]",
) -> Comparison:
    labels = predictions[0].labels
    difference = paired_bootstrap(*(one.of(name) for one in predictions), labels, resampled(name))
    examples = len(labels)
    sentence = sentence_of(a.column, split, name, a.model, b.model, seeds, examples, difference)
    return Comparison(a.column, split, name, a.model, b.model, tuple(seeds), examples, difference, sentence)


@dataclass(frozen=True)
class _OfSeeds:
    """Predictions (S, N) and labels (N,) in the order of example ids; of several labels (S, N, C) and (N, C).

    `scores` is (S, N, C), and None for tasks of one label.
    """

    predictions: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    scores: npt.NDArray[np.float64] | None

    def of(self, metric: str) -> npt.NDArray[Any]:
        """Return what the metric takes: the scores where it ranks examples, else the predictions."""
        return self.scores if self.scores is not None and METRICS[metric].of_logits else self.predictions


def _predictions(entry: Entry, seeds: Sequence[int], split: str) -> _OfSeeds:
    """Read the predictions of all seeds. Raises RunFolderError."""
    rows, scores, labels = [], [], None
    for result in (one for one in entry.seeds if one.cell.seed in seeds):
        path = predictions_file(result.cell.folder, split)
        found = read_labelled(path, entry.task)
        order = np.argsort(found.ids, kind="stable")
        if found.labels is None or (labels is not None and not np.array_equal(labels, found.labels[order])):
            raise RunFolderError(f"{str(path)!r} has not the examples of the other seeds: start its run anew.")
        labels = found.labels[order]
        rows.append(found.predictions[order])
        scores += [] if found.scores is None else [found.scores[order]]
    assert labels is not None
    return _OfSeeds(np.stack(rows), labels, np.stack(scores) if scores else None)


def sentence_of(
    task: str, split: str, metric: str, a: str, b: str, seeds: Sequence[int], examples: int, found: Difference | None
) -> str:
    """Return the sentence that a careful reader may take from a comparison."""
    place = f"On {task} ({split}, {examples:,} examples) over {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    name = metric.replace("_", " ")
    if found is None:
        return f"{place}, {name} of {a} or {b} is undefined, so they cannot be compared."
    numbers = (
        f"{_points(metric, abs(found.value), signed=False)} {name}{' points' if metric in SHARES else ''} "
        f"{'above' if found.value >= 0 else 'below'} {b} (A - B: 95% interval {_points(metric, found.low)} to "
        f"{_points(metric, found.high)}, p = {found.p:.3f})"
    )
    one_seed = " One seed says nothing about the spread between seeds." if len(seeds) == 1 else ""
    return f"{place}, {a} is {numbers}: {_verdict(metric, a, b, found)}.{one_seed}"


def _points(metric: str, value: float, signed: bool = True) -> str:
    number = 100 * value if metric in SHARES else value
    return f"{number:{'+' if signed else ''}.2f}"


def _verdict(metric: str, a: str, b: str, found: Difference) -> str:
    if found.p >= EVIDENCE:
        return "no evidence of a difference"
    better = (found.value > 0) == METRICS[metric].greater_is_better
    return f"evidence that {a if better else b} is better on these examples"
