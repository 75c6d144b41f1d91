"""Makes the cells of a table: one run for each model, task and seed, with a run folder of its own."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsys.config import RunConfig, build_run
from ftsys.config.load import Tree, merged, read_with_paths
from ftsys.config.task_checks import KNOWN_TASKS, task_of
from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.files.paths import expanded, there
from ftsys.run_folder.layout import MODEL
from ftsys.table.spec import TableSpec, checked_by_task, column_of, table_keys
from ftsys.tasks import GLUE, Task

CELL_FILE = "cell.toml"
"""The run file of a cell, in its run folder."""

RECEIVERS = ("rte", "mrpc", "stsb")
"""The tasks that start from the model of another one with `transfer`. GLUE's small tasks profit from MNLI (Liu et al.,
RoBERTa, 2019, section 5.1)."""


@dataclass(frozen=True)
class Cell:
    """One run of a table. `run.output_dir` is its run folder.

    `model` names the row, `column` the column. `needs` is the run folder whose trained model the run starts from, and
    `origin` the run as it is without that: it has the same tokens, and its model is there before any training.
    """

    model: str
    column: str
    seed: int
    run: RunConfig
    origin: RunConfig
    needs: Path | None = None
    start: str = ""
    """The task whose model the run starts from; "" for none."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run.output_dir)

    @property
    def task(self) -> Task:
        """The task's row, with the changes of the run file."""
        return task_of(self.run)

    @property
    def name(self) -> str:
        """The cell's name in messages."""
        return f"{self.model}/{self.column}/seed-{self.seed}"


def cells_of(spec: TableSpec) -> list[Cell]:
    """Return all cells, row by row. Raises ConfigError with every mistake of every cell's run file."""
    tasks = _tasks(spec)
    _refuse_twice("models", map(slug, spec.models))
    _refuse_twice("tasks", (column_of(task) for task in tasks))
    cells: list[Cell] = []
    mistakes: dict[str, None] = {}
    for model in spec.models:
        for task in tasks:
            try:
                cells += _cells(spec, model, task)
            except ConfigError as error:
                mistakes |= {f"{slug(model)}, {column_of(task)}: {text}": None for text in error.messages}
    ConfigError.raise_if(mistakes)
    return cells


def _tasks(spec: TableSpec) -> tuple[str, ...]:
    """Return the columns' tasks or files: all of GLUE's for "all", and the task of `transfer` first."""
    tasks = tuple(name for name, row in GLUE.items() if row.train_split) if spec.tasks == ("all",) else spec.tasks
    if not spec.transfer:
        return tasks
    if spec.transfer not in GLUE or spec.transfer in RECEIVERS:
        others = [name for name, row in GLUE.items() if row.train_split and name not in RECEIVERS]
        raise ConfigError(
            f"transfer {spec.transfer!r} is no task to start from: {did_you_mean(spec.transfer, others)}."
        )
    return (spec.transfer, *(task for task in tasks if task != spec.transfer))


def _refuse_twice(kind: str, names: Iterable[str]) -> None:
    """Raise ConfigError where two rows or two columns have one name, and so their cells one run folder."""
    ConfigError.raise_if(
        f"two of the {kind} have the name {name!r}, so their runs would share a folder: rename one of the files, or "
        "name each once."
        for name, count in Counter(names).items()
        if count > 1
    )


def slug(model: str) -> str:
    """Return the name of a row's folder: the last part of a path, or the Hub's name with `--` for `/`."""
    path, name = expanded(model), model
    if model.endswith(".toml"):
        name = path.stem
    elif path.is_absolute() or model.startswith(".") or (there(path) and path.is_dir()):
        name = path.resolve().name
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", name.replace("/", "--")) or "model"


def _cells(spec: TableSpec, model: str, task: str) -> Iterator[Cell]:
    """Yield the cells of a row and a column, one for each seed."""
    tree = _tree(spec, model, task)
    receives = _section(tree, "task").get("name") in RECEIVERS
    start = spec.transfer if spec.transfer and receives else ""
    column = f"{column_of(task)}-from-{start}" if start else column_of(task)
    for seed in spec.seeds:
        needs = _folder(spec, model, start, seed) if start else None
        own: Tree = {"output_dir": str(_folder(spec, model, column, seed)), "train": {"seed": seed}}
        origin = run = build_run(merged(tree, own))
        if needs is not None:
            run = build_run(merged(tree, own | {"model": {"name": str(needs / MODEL), "head": "new"}}))
        yield Cell(slug(model), column, seed, run, origin, needs, start)


def _folder(spec: TableSpec, model: str, column: str, seed: int) -> Path:
    return spec.folder / slug(model) / column / f"seed-{seed}"


def _tree(spec: TableSpec, model: str, task: str) -> Tree:
    """Merge a cell's values: run file < row's file < column's file < by_task < command line < names of the cell."""
    tree, by_task = dict(spec.base), [spec.by_task]
    if model.endswith(".toml"):
        row = read_with_paths(model)
        by_task.append(checked_by_task(model, table_keys(model, row.pop("table", {})), spec.known))
        tree = merged(
            tree, _without(row, "output_dir", "task", "data") | {"data": _without(_section(row, "data"), "source")}
        )
    tree = merged(tree, _column_tree(spec, tree, task))
    for values in by_task:
        tree = merged(tree, values.get(column_of(task), {}))
    tree = merged(tree, _without(spec.overrides, "output_dir"))
    if not model.endswith(".toml"):
        tree = merged(tree, {"model": {"name": model}})
    if not task.endswith(".toml"):
        tree = merged(tree, {"task": {"name": task}})
    return tree


def _column_tree(spec: TableSpec, tree: Tree, task: str) -> Tree:
    """Return what a column adds. It empties [task] of the run file, and data.source if the column's file has one."""
    if task.endswith(".toml"):
        column = _without(read_with_paths(task), "output_dir", "model", "table")
        _drop(tree, "task")
        if "source" in _section(column, "data"):
            tree["data"] = _without(_section(tree, "data"), "source")
        return column
    if task not in KNOWN_TASKS and task != _section(spec.base, "task").get("name"):
        raise ConfigError(
            f"tasks names {task!r}: {did_you_mean(task, KNOWN_TASKS)}, or the path of a run file (.toml)."
        )
    if task != _section(spec.base, "task").get("name"):
        _drop(tree, "task")
    return {}


def _section(tree: Tree, name: str) -> Tree:
    value = tree.get(name)
    return value if isinstance(value, dict) else {}


def _drop(tree: Tree, name: str) -> None:
    tree.pop(name, None)


def _without(tree: Tree, *names: str) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in names}
