"""Fits one slope to groups of points that have levels of their own. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Slope:
    """A slope per unit of x, with its standard error, and the mean of all points."""

    per_hour: float
    error: float
    mean: float
    samples: int


def slope_of(groups: Sequence[Sequence[tuple[float, float]]]) -> Slope:
    """Fit y = level of the group + slope * x by least squares. Raises ValueError for too few points.

    The levels are taken out by the groups' means (the within estimator of panel data). The error holds for points that
    are independent; neighbours in time are not quite, so the true one is larger.
    """
    centred = [pair for group in groups for pair in _centred(group)]
    free = len(centred) - len(groups) - 1
    squares = sum(x * x for x, _ in centred)
    if free < 1 or squares == 0:
        raise ValueError(f"{len(centred)} points in {len(groups)} groups have no slope")
    slope = sum(x * y for x, y in centred) / squares
    left = sum((y - slope * x) ** 2 for x, y in centred)
    mean = sum(y for group in groups for _, y in group) / len(centred)
    return Slope(slope, math.sqrt(left / free / squares), mean, len(centred))


def _centred(group: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    x, y = (sum(column) / len(group) for column in zip(*group, strict=True))
    return [(at - x, value - y) for at, value in group]
