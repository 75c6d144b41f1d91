"""Reads what a sweep is to do: [sweep] of the run file and the command's options, checked before anything starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ftsys.config import RunConfig, load_run, resolve_task, run_identity
from ftsys.config.schema import Count, Section, Write
from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.files.paths import check_output
from ftsys.metrics import METRICS
from ftsys.sweep.space import Space, overrides_of, read_space
from ftsys.tasks import Task


class SweepSection(Section):
    """The keys of [sweep]."""

    space: Annotated[dict[str, Any], Write("a table of keys and what they may be")] = Field(default_factory=dict)
    """Keys of the run file, each with a list or a range of values."""
    trials: Count = 20
    """Number of trials of the study, over all processes and starts. A grid has at most its number of combinations."""
    objective: Annotated[str, Write("the name of a metric in quotes")] = ""
    """Metric of the first evaluation split, or "loss". Empty: `train.keep_best`, or the task's first metric."""
    sampler: Annotated[Literal["tpe", "random", "grid"], Write('"tpe", "random" or "grid"')] = "tpe"
    """Way to choose values: Optuna's TPE, at random, or all combinations in turn."""
    pruner: Annotated[Literal["median", "halving", "none"], Write('"median", "halving" or "none"')] = "median"
    """Trials that end before their last evaluation: those below the median of the others at the same evaluation (after
    5 whole trials), those outside the better half at evaluations 1, 2, 4, 8 ..., or none."""


@dataclass(frozen=True)
class Sweep:
    """A sweep: the run file with its overrides, the space, and how to search it."""

    run_file: Path
    overrides: tuple[str, ...]
    run: RunConfig
    task: Task
    space: Space
    settings: SweepSection
    objective: str
    folder: Path

    @property
    def maximize(self) -> bool:
        """True if a higher value of the objective is better."""
        return self.objective != "loss" and METRICS[self.objective].greater_is_better

    @property
    def split(self) -> str:
        """The evaluation split of the objective."""
        return self.task.evaluation_splits[0]

    @property
    def identity(self) -> str:
        """The identity of the run without the values of a trial: results of other runs cannot be compared."""
        return run_identity(self.run)

    def check_unchanged(self) -> None:
        """Raise ConfigError if the run file has changed since this process read it: trials read it again."""
        if run_identity(load_run(self.run_file, self.overrides)) != self.identity:
            raise ConfigError(
                f"{self.run_file} has changed since this sweep began, and its trials would be other runs: restore it, "
                "or begin another sweep with --output."
            )


def read_sweep(run_file: Path, overrides: Sequence[str], space: Sequence[str], output: Path | None) -> Sweep:
    """Read the run file and the options. Raises ConfigError for every mistake, those of the space's values included."""
    run = load_run(run_file, overrides)
    settings = _section(run.sweep)
    searched = read_space(settings.space | dict(_assignment(word) for word in space))
    task = resolve_task(run)
    folder = output or Path(f"{Path(run.output_dir)}-sweep")
    check_output("--output" if output else "output_dir with -sweep,", folder, folder=True)
    sweep = Sweep(run_file, tuple(overrides), run, task, searched, settings, _objective(run, task, settings), folder)
    _check_values(sweep)
    return sweep


def _section(written: dict[str, Any]) -> SweepSection:
    """Check [sweep]. Raises ConfigError with a line for each key that is unknown or has a wrong value."""
    try:
        return SweepSection.model_validate(written)
    except ValidationError as error:
        details = {str(detail["loc"][0]): detail["type"] for detail in error.errors()}
        raise ConfigError("\n".join(_message(key, written[key], kind) for key, kind in details.items())) from None


def _message(key: str, value: Any, kind: str) -> str:
    fields = SweepSection.model_fields
    if kind == "extra_forbidden":
        return f"sweep.{key}={value!r} is not a known key: {did_you_mean(key, fields)}."
    write = next(item.text for item in reversed(fields[key].metadata) if isinstance(item, Write))
    return f"sweep.{key}={value!r} cannot be used: write {write}."


def _assignment(word: str) -> tuple[str, str]:
    key, equals, spec = word.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--space {word!r} is not KEY=VALUES: write for example train.learning_rate=log:1e-5..1e-4.")
    return key.strip().removeprefix("--"), spec.strip()


def _objective(run: RunConfig, task: Task, settings: SweepSection) -> str:
    if not task.evaluation_splits:
        raise ConfigError(
            "a sweep compares evaluations, but the source has no evaluation split: name one in data.source."
        )
    known = (*task.metrics, "loss")
    name = settings.objective or (run.train.keep_best if run.train.keep_best in known else task.metrics[0])
    if name not in known:
        raise ConfigError(
            f"the objective {name!r} is not computed in evaluations: {did_you_mean(name, known)}, or add "
            "it to task.metrics."
        )
    return name


def _check_values(sweep: Sweep) -> None:
    """Raise ConfigError if the run file cannot be used with a value of the space. Ranges are tried at both ends."""
    mistakes: list[str] = []
    for key, part in sweep.space.items():
        for value in part.samples():
            try:
                load_run(sweep.run_file, [*sweep.overrides, *overrides_of({key: value})])
            except ConfigError as error:
                mistakes.append(f"the space of {key} has {value!r}: {error}")
    ConfigError.raise_if(mistakes)
