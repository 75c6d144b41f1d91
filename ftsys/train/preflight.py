"""Checks a run before its folder is claimed: splits, settings, training labels and disk space."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ftsys.config import RunConfig
from ftsys.data.bundle import model_folder_of
from ftsys.data.class_weights import class_weights, rows_by_label
from ftsys.data.label_values import check_labels
from ftsys.data.store.reader import Store, StoreSplit
from ftsys.errors import ConfigError, DataError
from ftsys.files.folders import bytes_below
from ftsys.model_files.config import BUNDLED
from ftsys.model_files.folder import TOKENIZER_FILES
from ftsys.model_files.links import refuse_links
from ftsys.model_files.remote_code import code_files
from ftsys.run_folder.layout import CHECKPOINTS, MODEL
from ftsys.tasks import Task
from launcher.planner.cost.disk import bytes_at_least, bytes_at_most, size_text
from launcher.planner.deepspeed_config import user_json_of
from launcher.planner.model_shape.of_run import shape_of_run
from launcher.planner.plan import Plan, make_plan, this_machine


def check_trainable(task: Task) -> None:
    """Raise ConfigError for a task that has nothing but a test split, such as AX."""
    if task.train_split is None:
        raise ConfigError(
            f"task.name={task.name!r} has no training rows. Train a task with the same labels, such as mnli, and then "
            f"predict with its run file: ftsys predict RUN.toml --task.name {task.name}"
        )


def check_before_claim(run: RunConfig, task: Task, store: Store) -> list[str]:
    """Return what is doubtful about a run, a line each. Raises ConfigError or DataError for one that cannot train."""
    evaluated = task.evaluation_splits if run.train.eval_every != "never" else ()
    missing = [name for name in (str(task.train_split), *evaluated) if name not in store.splits]
    if missing:
        raise ConfigError(
            f"the source has no split {missing[0]!r}; it has {sorted(store.splits)}. "
            'Give data.source such a split, or train without evaluation: train.eval_every = "never".'
        )
    split = store.splits[str(task.train_split)]
    for each in store.splits.values():
        check_labels(each, task)
    _check_labels_differ(split, task)
    class_weights(run.train.class_weights, task, split)
    _check_peft(run)
    check_classifier(run)
    # The plan itself is made once the model is loaded: this one only finds settings that cannot work here.
    plan = make_plan(run, this_machine(os.environ), train_rows=len(split), deepspeed_json=user_json_of(run))
    _check_deepspeed(run, plan)
    return [*_doubtful_rows(store, task), *_disk_space(run)]


def _check_deepspeed(run: RunConfig, plan: Plan) -> None:
    if run.engine.deepspeed:
        from ftsys.train.deepspeed_setup import check_deepspeed_file

        check_deepspeed_file(run, plan)


def check_classifier(run: RunConfig) -> None:
    """Raise ConfigError for a model without a sequence classifier, with code that is not trusted, or with links out.

    Files of its folder are copied beside the trained model in the end.
    """
    from ftsys.models.families import check_has_classifier

    folder = model_folder_of(run)
    check_has_classifier(folder, run.model.trust_remote_code)
    if run.model.name != BUNDLED:
        refuse_links(folder, [*TOKENIZER_FILES, *(code_files(folder) if run.model.trust_remote_code else ())])


def _check_peft(run: RunConfig) -> None:
    """Raise ConfigError where adapters are asked for and peft is not installed."""
    if run.lora.r is not None and importlib.util.find_spec("peft") is None:
        raise ConfigError(f"lora.r={run.lora.r} needs the package peft. Run: pip install 'ftsys[lora]'.")


def _check_labels_differ(split: StoreSplit, task: Task) -> None:
    found = _labels_of(split, task)
    if task.multi_label:
        _check_label_sets_differ(split, task)
    elif len(found) < 2:
        raise DataError(
            f"split {split.name!r}: its {_rows(split)} all have the label {found[0]!r}: a model learns nothing from "
            "them. Give rows with two labels or more, or correct task.label_column."
        )


def _check_label_sets_differ(split: StoreSplit, task: Task) -> None:
    with_C, without_C = rows_by_label(task, split)
    if not np.logical_and(with_C, without_C).any():
        raise DataError(
            f"split {split.name!r}: its {_rows(split)} all have the same labels: a model learns nothing from them. "
            "Give rows with different labels, or correct task.label_column (or task.label_columns)."
        )


def _doubtful_rows(store: Store, task: Task) -> Iterator[str]:
    train = store.splits[str(task.train_split)]
    missing = [repr(name) for name in task.labels if name not in _labels_of(train, task)]
    if missing:
        yield f"no row of {train.name!r} has the label {' or '.join(missing)}: the model cannot learn it"
    for split in (store.splits[name] for name in task.evaluation_splits if name in store.splits):
        if split.labelled and task.multi_label:
            yield from _never(split, task)
        elif split.labelled and len(found := _labels_of(split, task)) == 1:
            yield f"in {split.name!r}, {_rows(split)} all have the label {found[0]!r}: its metrics say little"


def _never(split: StoreSplit, task: Task) -> Iterator[str]:
    names = [repr(name) for name in task.labels if name not in _labels_of(split, task)]
    if names:
        yield f"no row of {split.name!r} has the label {' or '.join(names)}: it counts as 0 in means over the labels"


def _labels_of(split: StoreSplit, task: Task) -> list[str | float]:
    """Return the names of the classes that occur; for a regression the smallest and the largest number."""
    if task.regression:
        ends = [(labels.min(), labels.max()) for labels in split.label_parts()]
        return sorted({float(np.min(ends)), float(np.max(ends))})
    counts_C, _ = rows_by_label(task, split)
    return [name for name, count in zip(task.labels, counts_C.tolist(), strict=True) if count]


def _rows(split: StoreSplit) -> str:
    return f"{len(split):,} row{'s' if len(split) > 1 else ''}"


def _disk_space(run: RunConfig) -> Iterator[str]:
    """Compare the free disk space with what the run writes. Raises ConfigError where the run could not end."""
    shape, _ = shape_of_run(run)
    folder = Path(run.output_dir).absolute()
    if shape is None:
        return
    free = free_bytes(folder)
    if free is None:
        return
    least, most = (count(run, shape.parameters, shape.frozen_parameters) for count in (bytes_at_least, bytes_at_most))
    if free < least:
        raise ConfigError(
            f"output_dir={run.output_dir!r}: {size_text(free)} of disk space are free, and the run writes at least "
            f"{size_text(least)} (model and checkpoints). Free some space, or name another output_dir."
        )
    if free < most:
        yield (
            f"{size_text(free)} of disk space are free, and the run writes up to {size_text(most)}: model and "
            "checkpoints. train.save_keep says how many are kept"
        )


def free_bytes(folder: Path) -> int | None:
    """Return the bytes that a run may write into its folder: the free ones, and its own model's and checkpoints'.

    None where the file system has no size, such as /proc.
    """
    exists = next(path for path in (folder, *folder.parents) if path.exists())
    usage = shutil.disk_usage(exists)
    return None if usage.total == 0 else usage.free + sum(bytes_below(folder / part) for part in (CHECKPOINTS, MODEL))
