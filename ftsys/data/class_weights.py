"""Computes the weights of the classes in the loss, from `train.class_weights` and the labels of the training split.

One label a row: the weights of torch's `CrossEntropyLoss(weight=...)`. A step's loss is the sum of the weighted losses
of its examples, divided by the sum of the weights of their classes. "balanced" is scikit-learn's formula: rows /
(classes * rows of the class).

Any number of labels a row: the weights of torch's `BCEWithLogitsLoss(pos_weight=...)`. A label's loss is multiplied by
its weight in the examples that have it, and nothing is divided by weights. "balanced" is rows without the label / rows
with it, which is the same formula for each label, in proportion to the weight of the rows without it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ftsys.errors import DataError
from ftsys.tasks import Task

Setting = str | Sequence[float] | Mapping[str, float]
"""The value of `train.class_weights`: "none", "balanced", a number for each label, or numbers by the label's name."""


class Labelled(Protocol):
    """A split with labels for all rows, such as a `StoreSplit`."""

    name: str

    def label_parts(self) -> Iterable[npt.NDArray[Any]]:
        """Return all labels, part by part: (n,) class ids, or (n, C) of 1 and 0."""


def class_weights(setting: Setting, task: Task, split: Labelled) -> tuple[float, ...] | None:
    """Return the weight of each label in the task's order; None for "none". `split` is the training split.

    Raises DataError for "balanced" with a label that no row has, or of several labels one that every row has.
    """
    if setting == "none":
        return None
    if isinstance(setting, Mapping):
        return tuple(float(setting.get(name, 1.0)) for name in task.labels)
    if not isinstance(setting, str):
        return tuple(map(float, setting))
    with_C, without_C = rows_by_label(task, split)
    _refuse_empty(task, split.name, with_C, "no row")
    if not task.multi_label:
        rows = int(with_C.sum())
        return tuple((rows / (len(task.labels) * with_C)).tolist())
    _refuse_empty(task, split.name, without_C, "every row")
    return tuple((without_C / with_C).tolist())


def rows_by_label(task: Task, split: Labelled) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the number of rows with each label, and without it."""
    counts_C, rows = np.zeros(len(task.labels), np.int64), 0
    for labels in split.label_parts():
        counts_C += labels.sum(axis=0) if task.multi_label else np.bincount(labels, minlength=len(counts_C))
        rows += len(labels)
    return counts_C, rows - counts_C


def _refuse_empty(task: Task, split: str, counts_C: npt.NDArray[np.int64], which: str) -> None:
    names = [repr(name) for name, count in zip(task.labels, counts_C.tolist(), strict=True) if not count]
    if names:
        raise DataError(
            f'train.class_weights="balanced" needs rows with and without each label, and {which} of {split!r} has the '
            f"label {' or '.join(names)}: write numbers instead, or correct task.labels."
        )
