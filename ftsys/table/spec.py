"""Reads the rows, columns and seeds of a table from [table] of a run file and from the command line."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from ftsys.config.load import Tree, merged, parse_overrides, read_with_paths
from ftsys.config.task_checks import KNOWN_TASKS
from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.files.paths import expanded
from ftsys.files.untrusted import typed
from ftsys.tasks import PARAPHRASE

_RANGE = re.compile(r"(\d{1,10})(?:\.\.(\d{1,10}))?")
_MOST_SEEDS = 10_000


class TableKeys(TypedDict, total=False):
    """The keys of [table]."""

    models: list[str]
    tasks: list[str]
    seeds: str | list[Annotated[int, Field(ge=0)]]
    transfer: str
    by_task: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TableSpec:
    """A table as it was asked for.

    `base` holds the run file's values without [table], `overrides` those of the command line, which take precedence
    over everything else. `models` are names of models, or paths of run files (`.toml`); `tasks` are names of tasks, or
    paths of run files. `transfer` is the task whose models the small tasks start from, "" for none. `by_task` has
    values of a run file for single tasks, whose names are among `known`: the run file's tasks, and those asked for.
    """

    run_file: str
    base: Tree
    overrides: Tree
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    transfer: str
    by_task: Mapping[str, Tree]
    known: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The table's folder: `output_dir`."""
        return expanded(str(self.overrides.get("output_dir") or self.base.get("output_dir") or ""))


def read_spec(
    run_file: str,
    overrides: Sequence[str],
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    seeds: Sequence[str] = (),
    transfer: str = "",
) -> TableSpec:
    """Read a table. Arguments that are not empty replace the keys of [table].

    Raises ConfigError for a wrong key of [table] or task of by_task, an empty range of seeds, and a run file without
    output_dir.
    """
    base, line = read_with_paths(run_file), parse_overrides(overrides)
    keys = table_keys(run_file, merged({"table": base.pop("table", {})}, {"table": line.pop("table", {})})["table"])
    from_file = keys.get("seeds", [])
    wanted = seeds or ([from_file] if isinstance(from_file, str) else list(map(str, from_file)))
    own_task = str(_setting(base, line, "task", "name", ""))
    known = (*map(column_of, (*tasks, *keys.get("tasks", ()))), *filter(None, [own_task]))
    spec = TableSpec(
        run_file,
        base,
        line,
        tuple(models or keys.get("models", ())) or (_setting(base, line, "model", "name", "bundled"),),
        tuple(tasks or keys.get("tasks", ())) or (_own_task(base, line),),
        parse_seeds(wanted) if wanted else (int(_setting(base, line, "train", "seed", 42)),),
        transfer or keys.get("transfer", ""),
        checked_by_task(run_file, keys, known),
        known,
    )
    if not str(spec.folder).strip(".") or not isinstance(base.get("output_dir", ""), str):
        raise ConfigError(f'{run_file!r} sets no output_dir: write output_dir = "runs/NAME" for the table\'s folder.')
    return spec


def table_keys(run_file: str, value: object) -> TableKeys:
    """Check the values of [table]. Raises ConfigError."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{run_file!r}: table={value!r} is not a table: write its keys under [table].")
    known = tuple(TableKeys.__annotations__)
    ConfigError.raise_if(
        f"{run_file!r}: table.{key} is not a known key: {did_you_mean(key, known)}."
        for key in value
        if key not in known
    )
    try:
        keys = typed(TableKeys, dict(value))
    except ValueError as error:
        raise ConfigError(
            f'{run_file!r}: table.{error}: write models and tasks as lists of texts, and seeds as "1..5" or [1, 2].'
        ) from error
    ConfigError.raise_if(
        f"{run_file!r}: table.{key}={keys[key]!r} names nothing: name one or more, or leave the key out."
        for key in ("models", "tasks", "seeds")
        if key in keys and not keys[key]
    )
    return keys


def column_of(task: str) -> str:
    """Return the name of a column: the task's, or that of its run file without .toml."""
    return Path(task).stem if task.endswith(".toml") else task


def checked_by_task(run_file: str, keys: TableKeys, known: Sequence[str]) -> Mapping[str, Tree]:
    """Return [table.by_task] of a run file. Raises ConfigError for a name that is no task.

    A task may be one of `known`, of the file's own [table], or one that every run file may name, also if it is no
    column of this table.
    """
    by_task = keys.get("by_task", {})
    own = [column_of(task) for task in keys.get("tasks", ())]
    names = [name for name in dict.fromkeys((*known, *own, *KNOWN_TASKS)) if name != "all"]
    ConfigError.raise_if(
        f"{run_file!r}: table.by_task.{name} is no task of this table and no known task: {did_you_mean(name, names)}."
        for name in by_task
        if name not in names
    )
    return by_task


def parse_seeds(texts: Sequence[str]) -> tuple[int, ...]:
    """Return the seeds that texts such as "1..5", "7" or "1,3" name. Raises ConfigError for none, or one twice."""
    seeds: list[int] = []
    for text in (part.strip() for given in texts for part in given.split(",")):
        match = _RANGE.fullmatch(text)
        if match is None:
            raise ConfigError(f"seeds {text!r} is no number and no range: write --seeds 1..5 or --seeds 1 3 7.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"seeds {text!r} is an empty range: write the smaller number first, as in 1..5.")
        if last - first >= _MOST_SEEDS:
            raise ConfigError(f"seeds {text!r} names {last - first + 1:,} seeds: write {_MOST_SEEDS:,} or fewer.")
        seeds += range(first, last + 1)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds {' '.join(texts)!r} names {'a seed twice' if seeds else 'no seed'}: name each once.")
    return tuple(seeds)


def _own_task(base: Tree, line: Tree) -> str:
    """Return the run file's own task. Raises ConfigError where neither task.name nor the source names one."""
    name = str(_setting(base, line, "task", "name", ""))
    if not name and _setting(base, line, "data", "source", "") == "synthetic":
        return PARAPHRASE.name
    if not name:
        raise ConfigError("the table has no task: write --tasks mrpc rte, or tasks under [table].")
    return name


def _setting(base: Tree, line: Tree, section: str, key: str, default: Any) -> Any:
    """Return a value of the run file as the command line changes it; wrong types are found when a run is built."""
    value = default
    for tree in (base, line):
        part = tree.get(section)
        value = part.get(key, value) if isinstance(part, Mapping) else value
    return value if isinstance(value, type(default)) else default
