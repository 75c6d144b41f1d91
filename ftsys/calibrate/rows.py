"""Holds the rows to calibrate with, of both kinds of classification, as the fits take them.

Shapes: N rows, C classes, D decisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ftsys.calibrate.temperature import Floats, Ints

Bools = npt.NDArray[np.bool_]


class Column(NamedTuple):
    """A label that has a threshold: its logit against "not this label" (N,), and the rows that have it (N,)."""

    logits: Floats
    truth: Bools


@dataclass(frozen=True)
class Rows:
    """Logits (N, C) and labels: class ids (N,), or 0 and 1 (N, C) where a row may have several labels."""

    names: tuple[str, ...]
    logits: Floats
    labels: Ints

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, chosen: Bools) -> "Rows":
        """Return some of the rows; `chosen` is (N,)."""
        return Rows(self.names, self.logits[chosen], self.labels[chosen])

    @property
    def multi_label(self) -> bool:
        """True if a row may have several labels."""
        return self.labels.ndim == 2

    @property
    def groups(self) -> Ints:
        """(N,) The class of each row, or the number of its combination of labels."""
        if not self.multi_label:
            return self.labels
        groups: Ints = np.unique(self.labels, axis=0, return_inverse=True)[1].reshape(-1)
        return groups

    def decisions(self) -> tuple[Floats, Ints]:
        """Return logits and right classes of independent decisions between classes: (D, C) and (D,).

        A row is one decision between its classes. With several labels, each label of each row is a decision between
        "no", whose logit is 0, and "yes".
        """
        if not self.multi_label:
            return self.logits, self.labels
        logits_D = self.logits.reshape(-1)
        return np.stack([np.zeros_like(logits_D), logits_D], axis=1), self.labels.reshape(-1)

    def columns(self) -> Mapping[str, Column]:
        """Return the labels that can have a threshold: class 1 of two, or each of several labels; none otherwise."""
        if self.multi_label:
            return {name: Column(self.logits[:, at], self.labels[:, at] == 1) for at, name in enumerate(self.names)}
        if len(self.names) == 2:
            return {self.names[1]: Column(self.logits[:, 1] - self.logits[:, 0], self.labels == 1)}
        return {}


def scores_of(logits_N: Floats, temperature: float) -> Floats:
    """Return the scores (N,) of a column: 1 / (1 + exp(-logit / temperature))."""
    scores_N: Floats = 0.5 * (1 + np.tanh(logits_N / temperature / 2))  # without an overflow
    return scores_N
