"""Reads the answers of a task's models: the predictions of each variant's finished runs on one split."""

from collections.abc import Sequence
from dataclasses import dataclass

from ftsys.errors import DataError
from ftsys.html_report.facts import RunFacts
from ftsys.html_report.groups import TaskGroup
from ftsys.html_report.parts import Note
from ftsys.html_report.predictions import SplitPredictions, read_split_predictions


@dataclass(frozen=True)
class Answers:
    """The predictions of the finished runs of one variant on one split, a run for each seed."""

    variant: str
    split: str
    runs: Sequence[RunFacts]
    predictions: Sequence[SplitPredictions]

    @property
    def title(self) -> str:
        """The variant with its number of seeds."""
        seeds = len(self.runs)
        return f"{self.variant}, {f'{seeds} seeds' if seeds > 1 else 'one run'}"


def answers_of(group: TaskGroup, split: str, notes: list[Note]) -> list[Answers]:
    """Read the predictions of each variant; what cannot be read is left out, with a note."""
    found = []
    for variant in group.variants:
        pairs = []
        for run in variant.seeds:
            try:
                read = read_split_predictions(run.folder, split, group.task)
                pairs += [] if read is None else [(run, read)]
            except DataError as error:
                notes.append(Note(f"{run.name}: {error}", "warning"))
        if pairs:
            found.append(Answers(variant.name, split, *map(list, zip(*pairs, strict=True))))
    return found
