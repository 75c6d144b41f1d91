"""Makes the list of the examples that the models get most wrong, with their text from the run's data source."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftsys.config import RunConfig
from ftsys.data.sources.source import open_source
from ftsys.errors import FtsysError
from ftsys.html_report.answers import Answers
from ftsys.html_report.parts import Example, Examples, Note, Part, Section
from ftsys.html_report.statistics import label_losses, losses
from ftsys.tasks import Task

MOST = 10
_LONGEST_TEXT = 600

Texts = dict[int, tuple[list[str], Any]]
"""The texts of an example, and its label in the source, by id: a class id, a number, or 1 and 0 for each label."""


def examples_section(task: Task, answers: Sequence[Answers], anchor: str) -> Section:
    """Return the examples with the highest mean loss over all runs; without their text where the source is gone."""
    anchor, title = f"{anchor}-examples", "Examples that are most often and most clearly wrong"
    if not answers:
        return Section(title, anchor, [Note("No run has predictions of a labelled split yet.")])
    ids, badness, wrong, runs = _ranked(task, answers)
    worst = [int(index) for index in np.argsort(-badness, kind="stable") if wrong[index]][:MOST]
    if not worst:
        return Section(title, anchor, [Note("No run gets any example wrong.")])
    texts, note = _texts(answers, [int(ids[index]) for index in worst], task)
    listed = [_example(task, answers, int(ids[index]), texts, (int(wrong[index]), runs)) for index in worst]
    measure = "squared error" if task.regression else "loss"
    parts: list[Part] = [
        Examples(f"On {answers[0].split}, by mean {measure} over {runs} run{'s' if runs > 1 else ''}", listed)
    ]
    return Section(title, anchor, [*([Note(note, "warning")] if note else []), *parts])


def _ranked(task: Task, answers: Sequence[Answers]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return ids, mean loss and number of wrong runs, each (N,), for the ids of the first run; and the runs."""
    every = [one for answer in answers for one in answer.predictions]
    ids = every[0].ids
    same = [one for one in every if np.array_equal(one.ids, ids)]
    if task.regression:
        found = [np.square(one.labels.astype(np.float64) - one.predictions.astype(np.float64)) for one in same]
        wrong = [error > 0 for error in found]
    else:
        loss = label_losses if task.multi_label else losses
        found = [loss(one.scores, one.labels) for one in same if one.scores is not None]
        wrong = [(one.labels != one.predictions).reshape(len(ids), -1).any(axis=1) for one in same]
    return ids, np.mean(found, axis=0), np.sum(wrong, axis=0), len(same)


def _texts(answers: Sequence[Answers], ids: Sequence[int], task: Task) -> tuple[Texts, str]:
    """Return the texts of the examples by id, and a sentence on why there are none."""
    run, first = answers[0].runs[0].run, answers[0].predictions[0]
    if run is None:
        return {}, "The run file cannot be read, so the examples are shown without their text."
    try:
        found = _read(run, answers[0].split, ids, task)
    except (FtsysError, OSError, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0][:300]
        return {}, f"The source of the data cannot be read ({reason}), so the examples are shown without their text."
    labels = dict(zip(first.ids.tolist(), first.labels, strict=True))
    if any(number not in found or not np.array_equal(found[number][1], labels[number]) for number in ids):
        return {}, "The source of the data has changed since the run, so the examples are shown without their text."
    return found, ""


def _read(run: RunConfig, split: str, ids: Sequence[int], task: Task) -> Texts:
    wanted, found = set(ids), {}
    for batch in open_source(run.data, task).batches(split):
        for number in wanted & set(range(batch.first_row, batch.first_row + len(batch.first))):
            row = number - batch.first_row
            texts = [batch.first[row], *([batch.second[row]] if batch.second is not None else [])]
            found[number] = (
                [text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…" for text in texts],
                batch.labels[row],
            )
    return found


def _example(task: Task, answers: Sequence[Answers], number: int, texts: Texts, wrong: tuple[int, int]) -> Example:
    facts = {"example": f"{number:,}", "label": ""}
    for answer in answers[:4]:
        one = answer.predictions[0]
        row = int(np.flatnonzero(one.ids == number)[0]) if number in one.ids else None
        if row is None:
            continue
        facts["label"] = _answer(task, one.labels[row])
        share = "" if one.scores is None or task.multi_label else f" ({one.scores[row].max():.0%})"
        seeds = "" if len(answer.runs) == 1 else f", seed {answer.runs[0].seed}"
        facts[f"{answer.variant}{seeds}"] = _answer(task, one.predictions[row]) + share
    if not task.regression and wrong[1] > 1:
        facts["wrong in"] = f"{wrong[0]} of {wrong[1]} runs"
    return Example(texts[number][0] if number in texts else (), facts)


def _answer(task: Task, value: Any) -> str:
    """Return a label's name, or a regression's number. `value`: a class id or a number, as NumPy has it.

    Of several labels, return their names; `value` is then (C,) of 1 and 0.
    """
    if task.multi_label:
        return ", ".join(name for name, has in zip(task.labels, value, strict=True) if has) or "no label"
    return f"{float(value):.3f}" if task.regression else task.labels[int(value)]
