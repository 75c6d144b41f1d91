"""Lists the tasks, one row for each. All differences between tasks are data in this table; no task has a class."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["class", "number", "labels"]
"""The kind of an example's target: one class, a number, or any number of labels."""

_OF_MULTI_LABEL = ("multi_label", "label_columns")


@dataclass(frozen=True)
class Task:
    """The columns, labels, metrics and splits of a task.

    `columns` are the one or two text columns, with their names in the Hub's `nyu-mll/glue`. `labels` are the class
    names in the order of their ids, empty for regression. `metrics` are names from `ftsys.metrics`; the first one
    selects the best checkpoint. `evaluation_splits` and `test_splits` are names of the source's splits. With
    `multi_label`, an example has any number of the labels; `label_columns` are then the names of one 0/1 column for
    each label, or empty where the column `label_column` holds them all.
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    regression: bool = False
    evaluation_splits: tuple[str, ...] = ("validation",)
    test_splits: tuple[str, ...] = ("test",)
    train_split: str | None = "train"
    label_column: str = "label"
    multi_label: bool = False
    label_columns: tuple[str, ...] = ()

    def as_facts(self) -> dict[str, Any]:
        """Return all fields by name; without the fields of multi-label tasks for others, which older records lack."""
        return {key: value for key, value in asdict(self).items() if self.multi_label or key not in _OF_MULTI_LABEL}

    def multi_label_facts(self) -> dict[str, Any]:
        """Return what decides the labels of a multi-label task; nothing for other tasks, as in older records."""
        return {key: getattr(self, key) for key in _OF_MULTI_LABEL} if self.multi_label else {}

    @property
    def kind(self) -> Kind:
        """The kind of the task's targets."""
        return "number" if self.regression else "labels" if self.multi_label else "class"

    @property
    def num_outputs(self) -> int:
        """The number of the model's outputs: 1 for regression, otherwise the number of classes."""
        return 1 if self.regression else len(self.labels)

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits that the task may have, the training split first."""
        return ((self.train_split,) if self.train_split else ()) + self.evaluation_splits + self.test_splits


_MNLI_LABELS = ("entailment", "neutral", "contradiction")

GLUE: dict[str, Task] = {
    task.name: task
    for task in (
        Task("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",)),
        Task("sst2", ("sentence",), ("negative", "positive"), ("accuracy",)),
        Task("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
        Task("stsb", ("sentence1", "sentence2"), (), ("pearson", "spearmanr"), regression=True),
        Task("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
        Task(
            "mnli",
            ("premise", "hypothesis"),
            _MNLI_LABELS,
            ("accuracy",),
            evaluation_splits=("validation_matched", "validation_mismatched"),
            test_splits=("test_matched", "test_mismatched"),
        ),
        Task("qnli", ("question", "sentence"), ("entailment", "not_entailment"), ("accuracy",)),
        Task("rte", ("sentence1", "sentence2"), ("entailment", "not_entailment"), ("accuracy",)),
        Task("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment"), ("accuracy",)),
        Task(
            "ax",
            ("premise", "hypothesis"),
            _MNLI_LABELS,
            ("matthews_correlation",),
            train_split=None,
            evaluation_splits=(),
        ),
    )
}

PARAPHRASE = Task("paraphrase", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1"))
"""The task of the synthetic sample, with the columns, labels and metrics of MRPC."""
