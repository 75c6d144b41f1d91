"""Summarizes run folders for `ftsys report`: a row for each run, and mean and spread over several seeds."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from typing_extensions import TypedDict

from ftsys.errors import ConfigError, RunFolderError
from ftsys.files.untrusted import typed
from ftsys.report.table import Row, history_rows
from ftsys.run_folder.attempts import read_owner
from ftsys.run_folder.discover import each_once, find_run_folders
from ftsys.run_folder.layout import METRICS_LOG, for_all_seeds
from ftsys.run_folder.metrics_log import read_metrics
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import read_status

_NO_METRIC = ("loss", "examples")


@dataclass(frozen=True)
class RunSummary:
    """The summary of a run folder. An unfinished run has a state and a reason instead of metrics."""

    folder: Path
    task: str = ""
    seed: int | None = None
    model: str = ""
    state: str = "unknown"
    reason: str = ""
    loss: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Values by metric; None for one that is undefined."""
    recipe: str = ""
    """The run's identity without its seed, as text: runs with the same one are seeds of each other."""

    @property
    def finished(self) -> bool:
        """True if the run has results."""
        return self.state == "done"

    @property
    def label(self) -> str:
        """The run's name in the first column of the table."""
        parts = [str(self.folder), f"{self.task} seed {self.seed}" if self.seed is not None else ""]
        return "  ".join(part for part in parts if part) + ("" if self.finished else f"  ({self.state})")

    def as_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        known = {name: getattr(self, name) for name in ("task", "seed", "model", "state", "reason", "loss")}
        return {"folder": str(self.folder), **known, "metrics": dict(self.metrics)}


def rows_of_run(folder: Path, first_attempt: int = 1) -> list[Row]:
    """Make a row of each evaluation while training, and of each other labelled split under the final weights."""
    rows = history_rows(read_metrics(folder / METRICS_LOG, first_attempt=first_attempt))
    results = read_results(folder) or {}
    steps = results.get("steps", 0)
    final = results.get("best", {}).get("step", steps)
    shown = {row.split for row in rows if row.step == final}
    for split, found in results.get("metrics", {}).items():
        metrics = {name: value for name, value in found.items() if name not in _NO_METRIC}
        if metrics and split not in shown:
            epoch = results.get("epochs") if final == steps else None
            known = {"epoch": epoch, "step": final, "split": split}
            rows.append(Row(**known, eval_loss=found.get("loss"), metrics=metrics))
    return rows


def find_runs(given: Sequence[Path]) -> list[RunSummary]:
    """Find the runs in `given`: run folders, or folders that contain run folders, which are sorted by name.

    A run that is found twice, as by a link, is there once.
    Raises ConfigError that names every folder without a run, and every file that cannot be read.
    """
    found = {folder: find_run_folders(folder) for folder in given}
    runs, wrong = [], []
    for folder, below in each_once(found).items():
        if not found[folder]:
            wrong.append(f"{str(folder)!r} is not a run folder and holds none: name the output_dir of a run.")
        for path in below:
            try:
                runs.append(read_run(path))
            except RunFolderError as error:
                wrong.append(str(error))
            except (OSError, ValueError) as error:
                wrong.append(f"{str(path)!r} cannot be read ({error}): start its run again, which writes a new one.")
    ConfigError.raise_if(wrong)
    return runs


def read_run(folder: Path) -> RunSummary:
    """Summarize one run folder. Raises OSError, ValueError or RunFolderError for files that cannot be read."""
    results = read_results(folder)
    if results is not None:
        return _finished(folder, results)
    status = read_status(folder)
    return RunSummary(folder) if status is None else RunSummary(folder, state=status.state, reason=status.reason)


class _Finished(TypedDict):
    """The keys of results.json that a summary needs."""

    task: str
    model: str
    seed: int
    metrics: dict[str, dict[str, float | None]]


def _finished(folder: Path, results: Mapping[str, Any]) -> RunSummary:
    known = typed(_Finished, results)
    labelled = {split: found for split, found in known["metrics"].items() if set(found) - set(_NO_METRIC)}
    first = next(iter(labelled), None)
    metrics = {
        name if split == first else f"{name} {split}": value
        for split, found in labelled.items()
        for name, value in found.items()
        if name not in _NO_METRIC
    }
    loss = labelled[first].get("loss") if first is not None else None
    task, seed, model = known["task"], known["seed"], known["model"]
    return RunSummary(folder, task, seed, model, "done", loss=loss, metrics=metrics, recipe=_recipe(folder, seed))


def _recipe(folder: Path, seed: int) -> str:
    """Return the identity that the newest attempt recorded, without the seed; "" for a folder without a record."""
    identity = (read_owner(folder, forgive=True) or {}).get("identity")
    if not isinstance(identity, Mapping):
        return ""
    train = identity.get("train")
    without = {key: value for key, value in train.items() if key != "seed"} if isinstance(train, Mapping) else train
    model = for_all_seeds(str(identity.get("model")), seed)
    return json.dumps({**identity, "train": without, "model": model}, sort_keys=True)


class _Seeded(Protocol):
    @property
    def seed(self) -> int | None: ...
    @property
    def finished(self) -> bool: ...


Run = TypeVar("Run", bound=_Seeded)


def each_seed_once(runs: Sequence[Run]) -> list[Run]:
    """Return one run of each seed, the first that is finished, so that means and deviations are over seeds."""
    first: dict[object, Run] = {}
    for number, run in enumerate(sorted(runs, key=lambda run: not run.finished)):
        first.setdefault(("unknown", number) if run.seed is None else run.seed, run)
    chosen = {id(run) for run in first.values()}
    return [run for run in runs if id(run) in chosen]


def comparison_rows(runs: Sequence[RunSummary]) -> tuple[list[Row], list[Row]]:
    """Return a row for each run, and rows of mean and standard deviation of those that differ in their seed only."""
    rows = [Row(run=run.label, eval_loss=run.loss, metrics=run.metrics) for run in runs]
    groups: dict[tuple[str, str, str], list[RunSummary]] = {}
    for run in runs:
        if run.finished:
            groups.setdefault((run.task, for_all_seeds(run.model, run.seed), run.recipe), []).append(run)
    models, recipes = {model for _, model, _ in groups}, Counter((task, model) for task, model, _ in groups)
    extra: list[Row] = []
    for (task, model, _), found in groups.items():
        if len(members := each_seed_once(found)) > 1:
            name = f"{task}, {model}" if len(models) > 1 else task
            extra += _spread(f"{name}, {members[0].folder}" if recipes[task, model] > 1 else name, members)
    return rows, extra


def _spread(name: str, members: Sequence[RunSummary]) -> list[Row]:
    """Sum up the seeds of a run. A value that is undefined for a seed is left out, as in `ftsys table`."""
    common = [key for key in members[0].metrics if all(key in run.metrics for run in members)]
    values = {key: [value for run in members if (value := run.metrics[key]) is not None] for key in common}
    losses = [run.loss for run in members if run.loss is not None]
    mean = {key: statistics.fmean(found) if found else None for key, found in values.items()}
    deviation = {key: statistics.stdev(found) if len(found) > 1 else None for key, found in values.items()}
    loss = statistics.fmean(losses) if len(losses) == len(members) else None
    return [
        Row(run=f"{name}, mean of {len(members)} seeds", eval_loss=loss, metrics=mean),
        Row(run=f"{name}, standard deviation", metrics=deviation),
    ]
