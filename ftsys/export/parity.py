"""Compares an exported model with the stock model: logits, predictions and metrics of the same rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ftsys.errors import ConfigError
from ftsys.export.rows import SplitRows
from ftsys.export.targets import Run
from ftsys.metrics import METRICS, metrics_of_logits
from ftsys.tasks import Task

METRIC_LOSS = 0.02
"""The most that the task's first metric may get worse, however small the difference of logits is."""


@dataclass(frozen=True)
class Parity:
    """The answers of both models to the same rows.

    `largest` is the largest difference between two logits, over all rows and over the batches of other shapes, and
    `scale` the largest absolute logit of the stock model. `changed` is the number of rows with another prediction,
    None for a regression.
    """

    rows: int
    largest: float
    scale: float
    changed: int | None
    before: Mapping[str, float]
    after: Mapping[str, float]

    @property
    def drift(self) -> float:
        """The largest difference relative to the scale; NaN, which no tolerance accepts, if a logit is not finite."""
        return self.largest / max(self.scale, 1e-12)


def compare(task: Task, rows: SplitRows, stock: Run, exported: Run) -> Parity:
    """Give all rows to both models, and batches of other shapes too."""
    pairs = [(stock(batch), exported(batch)) for batch in rows.batches()]
    others = [(stock(batch), exported(batch)) for batch in rows.other_shapes()]
    largest = np.max([np.abs(left.astype(np.float64) - right).max() for left, right in [*pairs, *others]])
    before_NC, after_NC = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    return Parity(
        rows=len(before_NC),
        largest=float(largest),
        scale=float(np.abs(before_NC).max()),
        changed=None if task.regression else _changed(before_NC, after_NC, task.multi_label),
        before=metrics_of_logits(task, before_NC, rows.labels),
        after=metrics_of_logits(task, after_NC, rows.labels),
    )


def _changed(before_NC: np.ndarray, after_NC: np.ndarray, multi_label: bool) -> int:
    """Return the number of rows with another class, or with another set of labels."""
    if multi_label:
        return int(((before_NC > 0) != (after_NC > 0)).any(axis=1).sum())
    return int((before_NC.argmax(axis=1) != after_NC.argmax(axis=1)).sum())


def check_drift(target: str, parity: Parity, tolerance: float, metric: str) -> None:
    """Raise ConfigError if the exported model is not close enough to the stock model."""
    messages = []
    if not parity.drift <= tolerance:
        messages.append(
            f"--to {target}: logits differ by up to {parity.largest:.3g}, {parity.drift:.2%} of the largest "
            f"({parity.scale:.3g}); the tolerance is {tolerance:.2%}. Nothing was written. "
            "Allow more with --tolerance, or export to another target."
        )
    if _is_worse(parity.before[metric], parity.after[metric], METRICS[metric].greater_is_better):
        messages.append(
            f"--to {target}: {metric} of {parity.rows} rows goes from {parity.before[metric]:.4f} to "
            f"{parity.after[metric]:.4f}, and {METRIC_LOSS} is the most that it may lose. Nothing was written. "
            "Export to another target."
        )
    ConfigError.raise_if(messages)


def _is_worse(before: float, after: float, greater_is_better: bool) -> bool:
    """Return True if the metric lost more than METRIC_LOSS, or became undefined (NaN) by the export."""
    if math.isnan(after):
        return not math.isnan(before)
    return (before - after if greater_is_better else after - before) > METRIC_LOSS
