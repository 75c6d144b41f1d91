"""Reads everything that a run folder holds for the report. A file that is missing or damaged is noted, not an error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from ftsys.config import RunConfig, load_run, plain_tree, resolve_task
from ftsys.errors import FtsysError
from ftsys.files.untrusted import file_bytes, json_object
from ftsys.model_files.folder import BUNDLED, BUNDLED_MODEL
from ftsys.run_folder.attempts import read_owner
from ftsys.run_folder.layout import CALIBRATION_RESULTS, ENVIRONMENT, METRICS_LOG, PLAN, RUN_FILE, model_title
from ftsys.run_folder.metrics_log import read_metrics
from ftsys.run_folder.report_facts import DataFacts, RankFacts, read_data_facts, read_rank_facts
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import read_status_after_crash
from ftsys.tasks import Task

T = TypeVar("T")

_NOTHING: dict[str, Any] = {}
_NO_RANKS: list[RankFacts] = []


@dataclass(frozen=True)
class RunFacts:
    """The content of a run folder. `name` tells the run from the others of the page."""

    folder: Path
    name: str
    run: RunConfig | None = None
    results: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    data: DataFacts | None = None
    ranks: Sequence[RankFacts] = ()
    log: Sequence[Mapping[str, Any]] = ()
    problems: Sequence[str] = ()
    """A sentence for each file that cannot be read."""

    @property
    def finished(self) -> bool:
        """True if the run has results."""
        return bool(self.results)

    @property
    def state(self) -> str:
        """The state in status.json; "done" for a run with results, "unknown" without any."""
        return "done" if self.finished else str(self.status.get("state", "unknown"))

    @property
    def step(self) -> int:
        """The last optimizer step that is known."""
        steps = [self.results.get("steps"), self.status.get("step"), *(line["step"] for line in self.log[-1:])]
        return max((step for step in steps if isinstance(step, int)), default=0)

    @property
    def model(self) -> str:
        """The name of the model, without the folders before it."""
        named = self.run.model.name if self.run else "unknown model"
        name = self.results.get("model") or (BUNDLED_MODEL if named == BUNDLED else named)
        return model_title(str(name))

    @property
    def seed(self) -> int | None:
        """The seed of the run."""
        seed = self.results.get("seed", self.run.train.seed if self.run else None)
        return seed if isinstance(seed, int) else None

    @cached_property
    def task(self) -> Task:
        """The task; one without columns and labels where the run file cannot be read."""
        name = str(self.results.get("task") or (self.run.task.name if self.run else "") or "unknown task")
        try:
            return resolve_task(self.run) if self.run else Task(name, (), (), ())
        except FtsysError:
            return Task(name, (), (), ())

    @cached_property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The lines of the log that are evaluations."""
        return [line for line in self.log if "split" in line]

    @cached_property
    def steps(self) -> list[Mapping[str, Any]]:
        """The lines of the log that are training steps."""
        return [line for line in self.log if "split" not in line]

    def figures(self, section: str) -> dict[str, float]:
        """Return the numbers of a section of the results, such as "timing"; empty for a run without them."""
        found = self.results.get(section)
        return (
            {key: float(value) for key, value in found.items() if is_number(value)} if isinstance(found, dict) else {}
        )

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return the metrics of each labelled split: those of the results, or of the newest evaluations."""
        found = self.results.get("metrics") or {str(line["split"]): line for line in self.evaluations}
        return {
            str(split): {name: value for name, value in line.items() if is_metric(name) and is_number(value)}
            for split, line in found.items()
            if isinstance(line, Mapping)
        }


_LARGEST = 1e300

_NO_METRICS = frozenset(
    "step epoch time attempt split resumed_at examples runtime samples_per_second steps_per_second "
    "jit_compilation_time".split()
)


def is_metric(name: str) -> bool:
    """Return True for a key of an evaluation that is a metric or the loss."""
    return name not in _NO_METRICS


def is_number(value: object) -> TypeGuard[int | float]:
    """Return True for a number that is finite and no truth value; an integer may be too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def read_run_facts(folder: Path, name: str) -> RunFacts:
    """Read a run folder. What cannot be read is left out, with a sentence in `problems`."""
    problems: list[str] = []

    def tried(what: str, read: Callable[[], T | None], default: T) -> T:
        try:
            found = read()
            return default if found is None else found
        except (FtsysError, OSError, ValueError, TypeError) as error:
            problems.append(f"{name}: {what} cannot be read ({str(error).splitlines()[0][:300]})")
            return default

    first = int(tried("the record of attempts", lambda: read_owner(folder), _NOTHING).get("first_attempt", 1))
    facts: dict[str, Any] = {
        "run": tried(RUN_FILE, lambda: _run_file(folder / RUN_FILE), None),
        "results": tried("results.json", lambda: read_results(folder), _NOTHING),
        "plan": tried(PLAN, lambda: _json(folder / PLAN), _NOTHING),
        "environment": tried(ENVIRONMENT, lambda: _json(folder / ENVIRONMENT), _NOTHING),
        "calibration": tried(CALIBRATION_RESULTS, lambda: _json(folder / CALIBRATION_RESULTS), _NOTHING),
        "data": tried("data.json", lambda: read_data_facts(folder), None),
        "ranks": tried("ranks.json", lambda: read_rank_facts(folder), _NO_RANKS),
        "log": tried(METRICS_LOG, lambda: read_metrics(folder / METRICS_LOG, first), None) or (),
    }
    return RunFacts(folder, name, status=read_status_after_crash(folder), problems=problems, **facts)


def _run_file(path: Path) -> RunConfig | None:
    return load_run(path) if path.exists() else None


def _json(path: Path) -> dict[str, Any] | None:
    return json_object(file_bytes(path)) if path.exists() else None


def flat_config(run: RunConfig | None) -> dict[str, object]:
    """Return the values of a run file by dotted key."""
    flat: dict[str, object] = {}
    for name, value in (plain_tree(run) if run else {}).items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat
