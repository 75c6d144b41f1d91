"""Checks [task] against the known tasks and [data], and builds the task's row from them."""

import re
from collections.abc import Iterator
from dataclasses import replace

from ftsys.config.fields import Mistake
from ftsys.config.schema import RunTree
from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.labels import look_alikes, visible
from ftsys.metrics import METRICS
from ftsys.tasks import GLUE, PARAPHRASE, Kind, Task

KNOWN_TASKS: dict[str, Task] = {**GLUE, PARAPHRASE.name: PARAPHRASE}

_DEFAULT_METRICS: dict[Kind, tuple[str, ...]] = {
    "class": ("accuracy",),
    "number": ("pearson", "spearmanr"),
    "labels": ("micro_f1", "macro_f1", "subset_accuracy", "average_precision"),
}


def task_mistakes(run: RunTree) -> Iterator[Mistake]:
    """Yield the mistakes within [task], and between [task] and data.source."""
    name = task_name(run)
    if not name:
        known = ", ".join(KNOWN_TASKS)
        text = f"task.name={run.task.name!r} names no task: write one of {known}, or describe one of your own."
        yield Mistake(text, ("task.name",))
        return
    row = KNOWN_TASKS.get(name)
    if row is None and not _describes_itself(run):
        text = (
            f"task.name={name!r} is not a known task: {did_you_mean(name, KNOWN_TASKS)}, "
            "or describe a task of your own with task.columns and task.labels (or task.regression = true)."
        )
        yield Mistake(text, ("task.name",))
        return
    yield from _known_task_mistakes(run, row) if row else _custom_task_mistakes(run)
    yield from _source_mistakes(run, row)
    yield from _list_mistakes(run, name)


def task_name(run: RunTree) -> str:
    """Return the task's name; the synthetic sample implies the name of its own task."""
    implied = PARAPHRASE.name if run.data.source == "synthetic" and not _describes_itself(run) else ""
    return run.task.name or implied


def _describes_itself(run: RunTree) -> bool:
    section = run.task
    return bool(section.columns or section.labels or section.regression or section.label_columns)


def _known_task_mistakes(run: RunTree, row: Task) -> Iterator[Mistake]:
    section = run.task
    if section.regression and not row.regression:
        text = (
            f"task.regression=True does not fit task.name={row.name!r}, which has classes: "
            "give the task a name of your own."
        )
        yield Mistake(text, ("task.regression",))
    if section.multi_label:
        text = (
            f"task.multi_label=True does not fit task.name={row.name!r}, whose examples have one label each: give the "
            "task a name of your own."
        )
        yield Mistake(text, ("task.multi_label",))
    if section.label_columns:
        text = (
            f"task.label_columns={list(section.label_columns)!r} does not fit task.name={row.name!r}, whose examples "
            "have one label each: leave it out or give the task a name of your own."
        )
        yield Mistake(text, ("task.label_columns",))
    if section.labels and row.regression:
        text = (
            f"task.labels={list(section.labels)!r} does not fit task.name={row.name!r}, which is a regression: "
            "leave labels out or give the task a name of your own."
        )
        yield Mistake(text, ("task.labels",))
    if section.columns and len(section.columns) != len(row.columns):
        text = (
            f"task.columns={list(section.columns)!r} has {len(section.columns)} name(s), but task {row.name!r} reads "
            f"{len(row.columns)}: write as many as {list(row.columns)!r} has."
        )
        yield Mistake(text, ("task.columns",))


def _custom_task_mistakes(run: RunTree) -> Iterator[Mistake]:
    section = run.task
    if not section.columns:
        text = f'task.columns=[] names no text for task {section.name!r}: write columns = ["text"], or two names.'
        yield Mistake(text, ("task.columns",))
    if section.regression and section.labels:
        text = (
            f"task.labels={list(section.labels)!r} and task.regression=True exclude each other: "
            "a task has classes or a number, so write one of the two."
        )
        yield Mistake(text, ("task.labels", "task.regression"))
    if section.regression and section.multi_label:
        text = "task.multi_label=True and task.regression=True exclude each other: write one of the two."
        yield Mistake(text, ("task.multi_label", "task.regression"))
    yield from _label_column_mistakes(run)
    if not section.regression and not (section.labels or section.label_columns):
        text = (
            f"task.labels=[] names no class for task {section.name!r}: "
            'write labels = ["no", "yes"] in the order of their ids, or regression = true.'
        )
        yield Mistake(text, ("task.labels", "task.regression"))


def _label_column_mistakes(run: RunTree) -> Iterator[Mistake]:
    section, columns = run.task, list(run.task.label_columns)
    if columns and not section.multi_label:
        text = (
            f"task.label_columns={columns!r} names a column of 0 and 1 for each label, which a task of one label has "
            "not: write multi_label = true, or label_column."
        )
        yield Mistake(text, ("task.label_columns", "task.multi_label"))
    if columns and section.label_column:
        text = (
            f"task.label_columns={columns!r} and task.label_column={section.label_column!r} exclude each other: write "
            "one of the two."
        )
        yield Mistake(text, ("task.label_columns", "task.label_column"))
    if columns and section.labels and len(section.labels) != len(columns):
        text = (
            f"task.label_columns names {len(columns)} columns and task.labels {len(section.labels)} labels: write one "
            "column for each label, in the same order."
        )
        yield Mistake(text, ("task.label_columns", "task.labels"))


def _list_mistakes(run: RunTree, name: str) -> Iterator[Mistake]:
    section = run.task
    for key in ("columns", "labels", "label_columns", "metrics"):
        names = getattr(section, key)
        if len(set(names)) != len(names) or not all(names):
            yield Mistake(
                f"task.{key}={list(names)!r} repeats a name or has an empty one: write each once.", (f"task.{key}",)
            )
    if pair := look_alikes(section.labels) if len(set(section.labels)) == len(section.labels) else None:
        text = (
            f"task.labels names {visible(pair[0])} and {visible(pair[1])}, which look the same: write one of them, and "
            "correct the files."
        )
        yield Mistake(text, ("task.labels",))
    if len(section.columns) > 2:
        text = f"task.columns={list(section.columns)!r} names {len(section.columns)} columns: write one or two."
        yield Mistake(text, ("task.columns",))
    for key in ("labels", "label_columns"):
        if len(getattr(section, key)) == 1:
            text = f"task.{key}={list(getattr(section, key))!r} names one class: write two or more, or "
            yield Mistake(text + "regression = true.", (f"task.{key}",))
    yield from _metric_mistakes(run, name)


def _metric_mistakes(run: RunTree, name: str) -> Iterator[Mistake]:
    task = KNOWN_TASKS.get(name) or _custom_row(run)
    classes = len(run.task.labels or task.labels)
    allowed = [key for key, metric in METRICS.items() if task.kind in metric.kinds]
    for metric in filter(None, run.task.metrics):
        if metric not in allowed:
            kind = {"number": "a regression", "class": "classes", "labels": "several labels"}[task.kind]
            text = f"task.metrics names {metric!r}, which is not a metric for {kind}: {did_you_mean(metric, allowed)}."
            yield Mistake(text, ("task.metrics",))
        elif METRICS[metric].two_classes and classes > 2:
            text = f"task.metrics names {metric!r}, which is for two classes, but the task has {classes}: "
            yield Mistake(text + 'write "macro_f1" or "accuracy".', ("task.metrics",))
    for metric in () if any(run.task.metrics) else task.metrics:
        if METRICS[metric].two_classes and classes > 2 and task.kind == "class":
            text = f"{metric!r}, a metric of task.name={name!r}, is for two classes, but task.labels has {classes}: "
            yield Mistake(text + 'write task.metrics = ["macro_f1", "accuracy"].', ("task.labels", "task.metrics"))


def _source_mistakes(run: RunTree, row: Task | None) -> Iterator[Mistake]:
    source, name = run.data.source, task_name(run)
    if source == "hub" and name not in GLUE:
        text = (
            f"data.source='hub' has GLUE's tasks only, not task.name={name!r}: write a file for each split, "
            'such as source = {train = "train.csv", validation = "validation.csv"}'
            + (', or "synthetic".' if name == PARAPHRASE.name else ".")
        )
        yield Mistake(text, ("data.source", "task.name"))
    if source == "synthetic" and name != PARAPHRASE.name:
        text = (
            f"data.source='synthetic' is the synthetic sample of the task {PARAPHRASE.name!r}, "
            f'not of task.name={name!r}: write name = "{PARAPHRASE.name}" or another source.'
        )
        yield Mistake(text, ("data.source", "task.name"))
    if isinstance(source, dict):
        yield from _split_mistakes(source, row)
    elif row and run.task.label_column and source != "hub" and not source.startswith("hub:"):
        text = (
            f"task.label_column={run.task.label_column!r} is not read from data.source={source!r}, whose labels have a "
            "place of their own: leave label_column out, or name a file for each split."
        )
        yield Mistake(text, ("task.label_column", "data.source"))
    yield from _quoting_mistakes(run)
    splits = task_of(run).splits
    for split in run.data.first_rows:
        if split not in splits:
            yield Mistake(
                f"data.first_rows names the split {split!r}: {did_you_mean(split, splits)}.", ("data.first_rows",)
            )


def _quoting_mistakes(run: RunTree) -> Iterator[Mistake]:
    source, quoting = run.data.source, run.data.quoting
    files = source.values() if isinstance(source, dict) else ()
    if quoting != "auto" and not any(file.lower().endswith((".csv", ".tsv")) for file in files):
        text = (
            f"data.quoting={quoting!r} is for a table of CSV or TSV files, and data.source={source!r} names none: "
            "leave quoting out."
        )
        yield Mistake(text, ("data.quoting", "data.source"))


def _split_mistakes(source: dict[str, str], row: Task | None) -> Iterator[Mistake]:
    if not source:
        yield Mistake('data.source={} names no file: write {train = "train.csv", ...}.', ("data.source",))
    for split in source:
        if not re.fullmatch(r"[\w.-]+", split):
            text = f'data.source names the split {split!r}: name a split with letters, digits, "-", "." and "_".'
            yield Mistake(text, ("data.source",))
            continue
        known = split in row.splits if row else split.startswith(("train", "validation", "test"))
        if known and not (row is None and split.startswith("train") and split != "train"):
            continue
        splits = row.splits if row else ("train", "validation", "test")
        yield Mistake(f"data.source names the split {split!r}: {did_you_mean(split, splits)}.", ("data.source",))


def resolve_task(run: RunTree) -> Task:
    """Return the task's row: a known task with the changes of [task], or a task that the run file defines.

    Raises ConfigError if [task] and data.source do not define a task (`load_run` has checked that already).
    """
    ConfigError.raise_if(mistake.text for mistake in task_mistakes(run))
    return task_of(run)


def task_of(run: RunTree) -> Task:
    """Return the row of a run that has no `task_mistakes`: a known task with changes, or the run file's own."""
    section = run.task
    row = KNOWN_TASKS.get(task_name(run)) or _custom_row(run)
    return replace(
        row,
        columns=section.columns or row.columns,
        labels=section.labels or row.labels,
        metrics=section.metrics or row.metrics,
        label_column=section.label_column or row.label_column,
    )


def _custom_row(run: RunTree) -> Task:
    section, source = run.task, run.data.source
    row = Task(
        section.name,
        section.columns,
        section.labels or section.label_columns,
        (),
        regression=section.regression,
        multi_label=section.multi_label,
        label_columns=section.label_columns,
    )
    row = replace(row, metrics=_DEFAULT_METRICS[row.kind])
    if not isinstance(source, dict):
        return row
    return replace(
        row,
        train_split="train" if "train" in source else None,
        evaluation_splits=tuple(split for split in source if split.startswith("validation")),
        test_splits=tuple(split for split in source if split.startswith("test")),
    )
