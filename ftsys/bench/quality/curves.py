"""Computes when a mean over seeds has reached a score. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev


@dataclass(frozen=True)
class Evaluation:
    """A point of a training's curve: seconds since its command was given, and the mean of the task's metrics."""

    step: int
    seconds: float
    score: float


Curve = Sequence[Evaluation]
"""The evaluations of one seed; all seeds of a side have the same steps."""


def mean_scores(curves: Sequence[Curve]) -> list[float]:
    """Return the mean over seeds of the score of each evaluation. Raises ValueError for seeds with other steps."""
    if len({tuple(point.step for point in curve) for curve in curves}) != 1:
        raise ValueError("the seeds of a side were not evaluated at the same steps")
    return [mean(point.score for point in points) for points in zip(*curves, strict=True)]


def first_reached(curves: Sequence[Curve], target: float) -> int | None:
    """Return the number of the first evaluation whose mean over seeds is `target` or more; None if there is none.

    The mean is compared, not each seed: the first time that one noisy curve touches a mean says little.
    """
    return next((index for index, score in enumerate(mean_scores(curves)) if score >= target), None)


def final_scores(curves: Sequence[Curve]) -> list[float]:
    """Return the last score of each seed."""
    return [curve[-1].score for curve in curves]


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; 0 for one value, of which nothing is known."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
