"""Forms the score of a task and the GLUE average as GLUE's leaderboard does, and finds seeds that diverged.

Sources: Wang et al., "GLUE: a multi-task benchmark and analysis platform", ICLR 2019 (a task's metrics are averaged
first, then the tasks); Mosbach et al., "On the stability of fine-tuning BERT", ICLR 2021 (a run that is not better than
a majority classifier has failed); Devlin et al., "BERT", NAACL 2019 (the average without WNLI).
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from ftsys.metrics import METRICS, compute
from ftsys.run_folder.predictions import LabelledPredictions
from ftsys.tasks import GLUE, Task

NO_METRIC = ("loss", "examples")

SHARES = frozenset(
    "accuracy f1 precision recall macro_f1 matthews_correlation pearson spearmanr kendalltau "
    "micro_f1 subset_accuracy average_precision".split()
)
"""Metrics of at most 1, whose values and differences are told in points: hundredths."""

CORRELATIONS = frozenset({"pearson", "spearmanr", "kendalltau"})
"""Metrics that are undefined for one answer for all examples."""

AVERAGED = tuple(name for name, row in GLUE.items() if row.train_split)
"""The nine tasks of the GLUE average. The diagnostic set AX is not among them."""


def named_metrics(task: Task, results: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the metrics of a run's labelled evaluation splits by name; those of a second split have its name too.

    A value that is undefined is None.
    """
    found: dict[str, float | None] = {}
    splits = results.get("metrics", {})
    for split in (name for name in task.evaluation_splits if name in splits):
        for name, value in splits[split].items():
            if name not in NO_METRIC:
                number = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
                found[name if split == task.evaluation_splits[0] else f"{name} {split}"] = number
    return found


def task_score(task: Task, metrics: Mapping[str, float | None]) -> float | None:
    """Return the mean of a run's metrics, over both MNLI splits too; None if one is undefined or there is none.

    Only shares can be averaged: a task with another metric, such as an error, has its first metric as its score. So has
    a task of several labels, whose metrics look at the same answers in different ways.
    """
    shares = not task.multi_label and all(name.partition(" ")[0] in SHARES for name in metrics)
    values = list(metrics.values()) if shares else [metrics.get(task.metrics[0])]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def in_points(task: Task) -> bool:
    """Return True if the task's score is told in points, hundredths of a share."""
    return all(name in SHARES for name in task.metrics)


def average_name(tasks: Sequence[str]) -> str:
    """Return the name of the average over these GLUE tasks."""
    if set(tasks) == set(AVERAGED):
        return "GLUE average"
    if set(tasks) == set(AVERAGED) - {"wnli"}:
        return "GLUE average without WNLI"
    return f"mean of {len(tasks)} GLUE tasks"


def why_diverged(task: Task, found: LabelledPredictions) -> str:
    """Return why a run counts as diverged; "" if it does not.

    A run has diverged if its first metric is undefined, or not better than the best prediction that is the same for
    all examples: the best class, or for a regression the mean of the labels. A correlation has to be above 0. Of
    several labels the answers that are tried are the most frequent labels, any number of them, and the most frequent
    combination.
    """
    if found.labels is None or not len(found.labels):
        return ""
    name = task.metrics[0]
    sign = 1.0 if METRICS[name].greater_is_better else -1.0
    value = _metric(name, task, found.judged(METRICS[name].of_logits), found.labels)
    least = max(sign * one for one in _constant_scores(name, task, found.labels))
    if value is None:
        return f"{name} is undefined"
    same = f"{name} {value:.4f} is not better than {sign * least:.4f}, that of one answer for all examples"
    return same if sign * value <= least else ""


def _constant_scores(name: str, task: Task, labels_N: npt.NDArray[Any]) -> list[float]:
    """Return the metric of each constant prediction; 0 where it is undefined, as it always is for a correlation."""
    if name in CORRELATIONS:
        return [0.0]
    answers: Sequence[Any] = [labels_N.mean()] if task.regression else range(task.num_outputs)
    if task.multi_label:
        answers = _constant_sets(labels_N)
    scores = [_metric(name, task, np.full_like(labels_N, answer), labels_N) for answer in answers]
    return [0.0 if score is None else score for score in scores]


def _constant_sets(labels_NC: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return sets of labels (C,) of 1 and 0: the K most frequent for each K, and the most frequent combination."""
    rank_C = np.argsort(np.argsort(-labels_NC.sum(axis=0), kind="stable"))
    combinations, counts = np.unique(labels_NC, axis=0, return_counts=True)
    return [*((rank_C < size).astype(np.int64) for size in range(len(rank_C) + 1)), combinations[counts.argmax()]]


def _metric(name: str, task: Task, predictions_N: npt.NDArray[Any], labels_N: npt.NDArray[Any]) -> float | None:
    value = compute((name,), predictions_N, labels_N)[name]
    return value if value is not None and math.isfinite(value) else None
