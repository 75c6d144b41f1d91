"""Checks that a store's labels are values of its task: a large store is not hashed when it is opened."""

import numpy as np

from ftsys.data.store.reader import StoreSplit
from ftsys.tasks import Task


def check_labels(split: StoreSplit, task: Task) -> None:
    """Raise DataError for a label that the task cannot have; does nothing for a split without labels.

    Reads all labels twice at most, and allocates nothing.
    """
    if not split.labelled or not len(split):
        return
    labels = np.ascontiguousarray(split.labels)
    if task.regression:
        right, found = bool(np.isfinite(labels.min()) and np.isfinite(labels.max())), "a label that is not finite"
    else:
        # Seen as unsigned, a negative label is huge.
        largest = labels.view(np.uint8 if task.multi_label else np.uint64).max()
        right = largest <= 1 if task.multi_label else largest < len(task.labels)
        found = f"the label {labels.min()} or {labels.max()}, and the task has {len(task.labels)} labels"
    if not right:
        raise split.damage(f"it has {found}")
