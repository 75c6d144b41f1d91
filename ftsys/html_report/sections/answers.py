"""Makes the sections on the answers of a task's models: scores by class, confusion or scatter, calibration."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from ftsys.html_report.answers import Answers
from ftsys.html_report.figures.answers import draw_confusion, draw_reliability, draw_scatter
from ftsys.html_report.groups import TaskGroup, spread_cell, with_spread
from ftsys.html_report.parts import Figure, Note, Part, Section, Table, table
from ftsys.html_report.sections.labels import by_label
from ftsys.html_report.statistics import confusion, per_class, reliability
from ftsys.tasks import Task

MOST_CLASSES = 30
"""A confusion matrix of more classes cannot be read in a figure of this size."""


_RELIABILITY = (
    "Share of right answers against the probability that the model gives, in 15 bins, all seeds together. On the "
    "dashed line a model is right as often as it says; below it, it is too sure. A larger dot stands for more examples."
)
_EACH_LABEL = " Each label of each example is an answer, yes or no."
_MOST_POINTS = 1000


def answer_sections(
    group: TaskGroup, answers: Sequence[Answers], notes: Sequence[Note], anchor: str, most: int
) -> list[Section]:
    """Return the sections for the answers, at most `most` variants: by class and calibration, or the regression."""
    kept = answers[:most]
    left = [Note(f"{len(answers) - most} more models are left out here: name fewer runs to see them.")]
    remarks = [*notes, *(left if len(answers) > most else [])]
    if not kept:
        nothing = Note("No run has predictions of a labelled split yet.")
        return [Section("Answers", f"{anchor}-answers", [*remarks, nothing])]
    if group.task.regression:
        return [
            Section(
                "Predicted against label", f"{anchor}-answers", [*remarks, *(_scatter(one, anchor) for one in kept)]
            )
        ]
    parts = by_label if group.task.multi_label else _by_class
    by_class: list[Part] = [part for one in kept for part in parts(one, group.task, anchor)]
    title = f"{'Labels' if group.task.multi_label else 'Classes'} on {kept[0].split}"
    return [
        Section(title, f"{anchor}-classes", [*remarks, *by_class]),
        Section("Calibration", f"{anchor}-calibration", _calibration(kept, group.task, anchor)),
    ]


def _scatter(answers: Answers, anchor: str) -> Figure:
    labels = np.concatenate([one.labels.astype(np.float64) for one in answers.predictions])
    found = np.concatenate([one.predictions.astype(np.float64) for one in answers.predictions])
    errors = [
        float(np.abs(one.labels.astype(float) - one.predictions.astype(float)).mean()) for one in answers.predictions
    ]
    some = np.random.default_rng(0).permutation(len(labels))[:_MOST_POINTS]
    points = f"{len(some):,} of {len(labels):,} points" if len(some) < len(labels) else f"{len(labels):,} points"
    text = f"Predicted value against label, {answers.title}: {points}. Mean absolute error {with_spread(errors)}."
    edges = np.linspace(labels.min(), labels.max(), 6)
    places = np.searchsorted(edges[1:-1], labels, side="right")  # a label on an edge belongs to the bin above it
    rows = [
        [f"{low:.2f} to {high:.2f}", *_bin(labels, found, places == number)]
        for number, (low, high) in enumerate(pairwise(edges))
    ]
    data = table("Mean prediction by label", ["label", "examples", "mean prediction", "mean absolute error"], rows)
    return Figure(
        f"{anchor}-scatter",
        f"{answers.variant}: predicted against label",
        text,
        partial(draw_scatter, labels[some], found[some]),
        data,
    )


def _bin(labels: np.ndarray, found: np.ndarray, inside: np.ndarray) -> list[float | int | None]:
    if not inside.any():
        return [0, None, None]
    return [int(inside.sum()), float(found[inside].mean()), float(np.abs(found - labels)[inside].mean())]


def _by_class(answers: Answers, task: Task, anchor: str) -> list[Part]:
    classes = len(task.labels)
    parts: list[Part] = [_class_table(answers, task)]
    if classes <= MOST_CLASSES:
        parts.append(_confusion(answers, task, anchor))
    else:
        parts.append(Note(f"No confusion matrix: it has {classes} classes, and up to {MOST_CLASSES} can be read."))
    return parts


def _class_table(answers: Answers, task: Task) -> Table:
    scores = [per_class(one.labels, one.predictions, len(task.labels)) for one in answers.predictions]
    columns = ([one.precision for one in scores], [one.recall for one in scores], [one.f1 for one in scores])
    rows = [
        [
            name,
            *(spread_cell([float(found[index]) for found in column], 3) for column in columns),
            int(scores[0].support[index]),
        ]
        for index, name in enumerate(task.labels)
    ]
    return table(
        f"Scores by class: {answers.title}", ["class", "precision", "recall", "F1", "support"], rows, beside=True
    )


def _confusion(answers: Answers, task: Task, anchor: str) -> Figure:
    mean = np.mean([confusion(one.labels, one.predictions, len(task.labels)) for one in answers.predictions], axis=0)
    share = np.divide(
        mean, mean.sum(axis=1, keepdims=True), out=np.zeros_like(mean), where=mean.sum(axis=1, keepdims=True) > 0
    )
    wrong = share - np.diag(np.diag(share))
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    taken = f"{task.labels[row]} taken for {task.labels[column]}"
    most = f"Most often confused: {taken}, {wrong[row, column]:.0%} of its examples." if wrong.any() else "No errors."
    text = f"Confusion matrix, {answers.title}; share of each label's examples, and their mean number. {most}"
    rows = [[name, *(round(float(value), 1) for value in mean[index])] for index, name in enumerate(task.labels)]
    data = table(
        "Mean number of examples; a row is a label, a column a prediction", ["label", *task.labels], rows, digits=1
    )
    draw = partial(draw_confusion, share, mean, task.labels)
    return Figure(f"{anchor}-confusion", f"{answers.variant}: confusion matrix", text, draw, data)


def _calibration(kept: Sequence[Answers], task: Task, anchor: str) -> list[Part]:
    """Return the reliability diagram, over all seeds, and the expected calibration error by run."""
    curves, rows, bins = [], [], []
    for answers in kept:
        scored = [found for one in answers.predictions if (found := one.decisions()) is not None and len(found[1])]
        if not scored:
            continue
        pooled = reliability(
            np.concatenate([scores for scores, _ in scored]), np.concatenate([labels for _, labels in scored])
        )
        curves.append((answers.variant, pooled))
        errors = [reliability(scores, labels).ece for scores, labels in scored]
        confidence = float(pooled.confidence @ pooled.count / pooled.count.sum())
        accuracy = float(pooled.accuracy @ pooled.count / pooled.count.sum())
        rows.append([answers.variant, spread_cell(errors), confidence, accuracy])
        bins += [
            [answers.variant, int(n), c, a]
            for n, c, a in zip(pooled.count, pooled.confidence.tolist(), pooled.accuracy.tolist(), strict=True)
            if n
        ]
    if not curves:
        return [Note("No run has finite probabilities.", "warning")]
    data = table("Bins of the figure", ["model", "examples", "mean probability", "share that is right"], bins)
    text = _RELIABILITY + (_EACH_LABEL if task.multi_label else "")
    figure = Figure(f"{anchor}-reliability", "Reliability diagram", text, partial(draw_reliability, curves), data)
    header = ["model", "ECE", "probability", "accuracy"]
    return [
        figure,
        table("Expected calibration error (ECE), mean probability, accuracy", header, rows, beside=True),
        *_calibrated(kept),
    ]


def _calibrated(kept: Sequence[Answers]) -> list[Part]:
    """Return the figures of `ftsys calibrate` before and after, for the runs that have them."""
    rows = []
    for run in (run for answers in kept for run in answers.runs if run.calibration):
        for name, before in _pairs(run.calibration, "before"):
            rows.append([run.name, name, before, dict(_pairs(run.calibration, "after_out_of_fold")).get(name)])
    return [table("Before and after `ftsys calibrate`", ["run", "figure", "before", "after"], rows)] if rows else []


def _pairs(calibration: object, moment: str) -> list[tuple[str, float]]:
    found = calibration.get(moment) if isinstance(calibration, dict) else None
    found = found if isinstance(found, dict) else {}
    return [(str(name), float(value)) for name, value in found.items() if isinstance(value, int | float)]
