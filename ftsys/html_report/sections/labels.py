"""Makes the parts on each label of a task with several labels an example: scores, counts, confusion."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ftsys.html_report.answers import Answers
from ftsys.html_report.figures.labels import draw_by_label, draw_label_counts
from ftsys.html_report.groups import spread_cell, with_spread
from ftsys.html_report.parts import Figure, Note, Part, Table, table
from ftsys.html_report.statistics import average_precisions, label_counts, per_label
from ftsys.tasks import Task

MOST_LABELS = 30
"""A figure has the most frequent labels; of more, it could not be read."""
MOST_CONFUSED = 16
"""Labels up to which their counts are drawn; the table has those of all."""

_COUNTS = ("true positive", "false negative", "false positive", "true negative")
_SHORT = ("TP", "FN", "FP", "TN")


def by_label(answers: Answers, task: Task, anchor: str) -> list[Part]:
    """Return a table of all labels, a figure of their scores, and one of their counts if they are few."""
    counts = [label_counts(one.labels, one.predictions) for one in answers.predictions]
    precisions = [average_precisions(one.labels, one.scores) for one in answers.predictions if one.scores is not None]
    frequent = np.argsort(-per_label(counts[0]).support, kind="stable")
    scores = _scores_figure(answers, task, counts, precisions, frequent[:MOST_LABELS], anchor)
    confusion: Part = Note(
        f"No figure of the counts: it would have {len(task.labels)} labels, and up to {MOST_CONFUSED} can be read."
    )
    if len(task.labels) <= MOST_CONFUSED:
        confusion = _counts_figure(answers, task, counts, frequent, anchor)
    return [scores, confusion, _label_table(answers, task, counts, precisions)]


def _label_table(
    answers: Answers,
    task: Task,
    counts: Sequence[npt.NDArray[np.int64]],
    precisions: Sequence[npt.NDArray[np.float64]],
) -> Table:
    scores = [per_label(one) for one in counts]
    mean = np.mean(counts, axis=0)
    columns = [
        [one.precision for one in scores],
        [one.recall for one in scores],
        [one.f1 for one in scores],
        precisions,
    ]
    rows = [
        [
            name,
            *(spread_cell([value for found in column if np.isfinite(value := found[index])], 3) for column in columns),
            int(scores[0].support[index]),
            round(float(mean[index, 0] + mean[index, 2]), 1),
        ]
        for index, name in enumerate(task.labels)
    ]
    header = ["label", "precision", "recall", "F1", "average precision", "examples", "predicted"]
    return table(f"Scores by label: {answers.title}", header, rows, digits=1)


def _scores_figure(
    answers: Answers,
    task: Task,
    counts: Sequence[npt.NDArray[np.int64]],
    precisions: Sequence[npt.NDArray[np.float64]],
    shown: npt.NDArray[np.int64],
    anchor: str,
) -> Figure:
    f1_SC, precision_SC = np.stack([per_label(one).f1 for one in counts]), np.stack(precisions)
    names = [task.labels[index] for index in shown]
    left = f" The {len(shown)} most frequent of {len(task.labels)} labels." if len(shown) < len(task.labels) else ""
    macro = with_spread([float(one.mean()) for one in f1_SC])
    text = (
        f"F1 and average precision of each label, the most frequent one first; {answers.title}; a dot is a run. "
        f"Mean F1 of all labels: {macro}.{left}"
    )
    columns = [("F1", f1_SC[:, shown]), ("average precision", precision_SC[:, shown])]
    rows = [[name, *(float(values_SC[:, at].mean()) for _, values_SC in columns)] for at, name in enumerate(names)]
    data = table("Mean over the runs", ["label", "F1", "average precision"], rows)
    title = f"{answers.variant}: scores by label"
    return Figure(f"{anchor}-labels", title, text, partial(draw_by_label, names, columns), data)


def _counts_figure(
    answers: Answers,
    task: Task,
    counts: Sequence[npt.NDArray[np.int64]],
    frequent: npt.NDArray[np.int64],
    anchor: str,
) -> Figure:
    mean_C4 = np.mean(counts, axis=0)[frequent]
    groups_C4 = np.repeat([mean_C4[:, :2].sum(axis=1), mean_C4[:, 2:].sum(axis=1)], 2, axis=0).T
    share_C4 = np.divide(mean_C4, groups_C4, out=np.zeros_like(mean_C4), where=groups_C4 > 0)
    names = [task.labels[index] for index in frequent]
    worst = int(share_C4[:, 1].argmax())
    text = (
        f"Confusion by label, {answers.title}: TP and FN are the examples that have the label, found and missed; FP "
        f"and TN those without it, wrongly given it and not. Shares of each pair, and mean numbers. Most often missed: "
        f"{names[worst]}, {share_C4[worst, 1]:.0%} of its examples."
    )
    rows = [[name, *(round(float(value), 1) for value in mean_C4[at])] for at, name in enumerate(names)]
    data = table("Mean number of examples", ["label", *_COUNTS], rows, digits=1)
    draw = partial(draw_label_counts, share_C4, mean_C4, names, _SHORT)
    return Figure(f"{anchor}-label-counts", f"{answers.variant}: confusion by label", text, draw, data)
