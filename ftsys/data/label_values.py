"""Checks that a store's labels are values of its task: a large store is not hashed when it is opened."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ftsys.data.store.reader import StoreSplit
from ftsys.tasks import Task


def check_labels(split: StoreSplit, task: Task) -> None:
    """Raise DataError for a label that the task cannot have; does nothing for a split without labels.

    Reads all labels twice at most, and allocates nothing.
    """
    for labels in split.label_parts() if split.labelled else ():
        if not _are_right(labels, task):
            found = f"the label {labels.min()} or {labels.max()}, and the task has {len(task.labels)} labels"
            raise split.damage(f"it has {'a label that is not finite' if task.regression else found}")


def _are_right(labels: npt.NDArray[Any], task: Task) -> bool:
    if task.regression:
        return bool(np.isfinite(labels.min()) and np.isfinite(labels.max()))
    # Seen as unsigned, a negative label is huge.
    largest = labels.view(np.uint8 if task.multi_label else np.uint64).max()
    return bool(largest <= 1 if task.multi_label else largest < len(task.labels))
