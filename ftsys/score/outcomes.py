"""Turns logits into scores and labels, by the rules of the model's head.

Shape suffixes: N rows, C outputs of the head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftsys.errors import ConfigError
from ftsys.model_files.calibration import CALIBRATION, read_calibration
from ftsys.model_files.head_order import head_names
from ftsys.run_folder.predictions import scores_from_logits
from ftsys.score.reranker import IDENTITY, SIGMOID, activation_named

SOFTMAX = "softmax"
HALF = 0.5
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """The rules of a head. `labels` are the names of its outputs; none for a head that gives one number.

    `several` is True for a multi-label head. `thresholds` holds the score from which on a label is given.
    """

    labels: tuple[str, ...]
    activation: str
    several: bool = False
    temperature: float = 1.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    thresholds_given: bool = False
    """True where the caller gave the thresholds, and not the model's calibration."""

    @property
    def note(self) -> str:
        """A note on a calibration; "" without one."""
        own = {} if self.thresholds_given else self.thresholds
        if self.temperature == 1.0 and not own:
            return ""
        named = ", ".join(f"{name} from {threshold:.4g}" for name, threshold in own.items())
        return f"calibrated: temperature {self.temperature:.4g}" + (f"; {named}" if named else "")

    @property
    def is_number(self) -> bool:
        """True for a head with one output: a regression or a reranker."""
        return not self.labels

    def scores(self, logits_NC: npt.NDArray[Any]) -> Scores:
        """Return the scores (N, C) in float64."""
        scaled_NC = np.asarray(logits_NC, np.float64) / self.temperature
        if self.activation == SOFTMAX:
            return scores_from_logits(scaled_NC)
        return sigmoid(scaled_NC) if self.activation == SIGMOID else scaled_NC

    def decide(self, scores_NC: Scores) -> list[Any]:
        """Return the label of each row; for a multi-label head the list of its labels.

        With thresholds, a head of two classes gives its second class from that score on, a head of more classes gives
        None to a row whose best score is lower than its threshold.
        """
        if self.several:
            bounds_C = np.array([self.thresholds.get(name, HALF) for name in self.labels])
            return [[self.labels[at] for at in np.flatnonzero(row_C)] for row_C in scores_NC >= bounds_C]
        if len(self.labels) == 2 and self.labels[1] in self.thresholds:
            second_N = scores_NC[:, 1] >= self.thresholds[self.labels[1]]
            return [self.labels[int(second)] for second in second_N]
        names = [self.labels[at] for at in scores_NC.argmax(axis=1)]
        return [
            name if best >= self.thresholds.get(name, 0.0) else None
            for name, best in zip(names, scores_NC.max(axis=1), strict=True)
        ]

    def with_threshold(self, threshold: float) -> "Head":
        """Return the head with one threshold for all labels. Raises ConfigError for a head that gives one number."""
        if self.is_number:
            raise ConfigError(
                f"a threshold of {threshold} needs classes, and this model gives one number for a row. Leave it out."
            )
        if not 0 <= threshold <= 1:
            raise ConfigError(f"a threshold of {threshold} is not between 0 and 1.")
        decided = self.labels[1:] if len(self.labels) == 2 and not self.several else self.labels
        return replace(self, thresholds=dict.fromkeys(decided, threshold), thresholds_given=True)


def sigmoid(logits: npt.NDArray[np.float64]) -> Scores:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def head_of_model(name: str, folder: Path, config: Mapping[str, Any]) -> Head:
    """Return the rules of the head of a model's folder, as transformers' text-classification pipeline has them.

    A head with one output is a regression's where `problem_type` says so, else its value goes through a sigmoid; the
    activation that sentence-transformers wrote for a reranker comes first. Temperature and thresholds are those of
    `ftsys calibrate`, where it has written them beside the model. Raises ConfigError for names that do not fit.
    """
    place, problem = f"model {name!r}", config.get("problem_type")
    names = head_names(place, config)
    outputs = len(names) or int(config.get("num_labels") or 2)
    if outputs == 1:
        return Head((), activation_named(folder, config) or (IDENTITY if problem == "regression" else SIGMOID))
    if problem == "regression":
        raise ConfigError(f"{place} gives {outputs} numbers for a row; only one number or classes can be written.")
    names = names or [f"LABEL_{index}" for index in range(outputs)]
    if len(set(names)) != outputs:
        raise ConfigError(f"{place}: its config.json gives two classes the same name: {names}. Correct id2label.")
    several = problem == "multi_label_classification"
    return _calibrated(Head(tuple(names), SIGMOID if several else SOFTMAX, several), folder)


def _calibrated(head: Head, folder: Path) -> Head:
    """Return the head with what calibration.json says. Raises ConfigError where that is of another model."""
    found = read_calibration(folder)
    if found is None:
        return head
    thresholds = dict(found.thresholds or {})
    unknown = [name for name in thresholds if name not in head.labels]
    if unknown:
        raise ConfigError(
            f"{folder / CALIBRATION}: it has a threshold for {unknown[0]!r}, and the model's classes are "
            f"{', '.join(head.labels)}. Write it again with `ftsys calibrate`."
        )
    return replace(head, temperature=found.temperature, thresholds=thresholds)
