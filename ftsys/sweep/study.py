"""Shares one Optuna study among any number of processes and nodes, of which each may die at any time.

    SWEEP_DIR/study.journal           Optuna's journal: every trial, its values and evaluations
              claims/trial-3.lease-1  the process that runs a trial, renewed every 5 seconds
              trial-3/                the run folder of a trial

A trial of a process that has died is taken over by another one under the same number. Its run goes on from its last
checkpoint, so nothing is tried twice. A journal file needs no database, and works on network file systems.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsys.errors import ConfigError
from ftsys.files.lease import Lease, LeaseTimes, LeaseWatch, hold_or_wait
from ftsys.sweep.settings import Sweep
from ftsys.sweep.space import Value, all_points, texts_of

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

JOURNAL, CLAIMS = "study.journal", "claims"


@dataclass(frozen=True)
class Claimed:
    """A trial that this process runs, and its claim to it."""

    trial: "Trial"
    values: Mapping[str, Value]
    claim: Lease
    taken_over: bool
    """True if another process began the trial and has died."""


class SharedStudy:
    """The study of a sweep folder, as one process uses it."""

    def __init__(self, sweep: Sweep, times: LeaseTimes | None = None) -> None:
        """Open or make the study. Raises ConfigError if the folder has the study of another space, run or objective."""
        self.sweep, self.folder = sweep, sweep.folder
        self._times = times or LeaseTimes()
        self._watches: dict[int, LeaseWatch] = {}
        grid = sweep.settings.sampler == "grid"
        self._points = all_points(dict(sorted(sweep.space.items()))) if grid else ()
        self.total = min(sweep.settings.trials, len(self._points)) if grid else sweep.settings.trials
        (self.folder / CLAIMS).mkdir(parents=True, exist_ok=True)
        with self.locked():
            self.study = _open(sweep)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time choose a trial or write the best run file."""
        lease = hold_or_wait(self.folder / CLAIMS / "study", _nothing, self._times)
        assert lease is not None
        with lease:
            yield

    def trials(self) -> "list[FrozenTrial]":
        """Return all trials that have begun, in the order of their numbers."""
        from optuna.trial import TrialState

        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def running(self) -> "list[FrozenTrial]":
        """Return the trials that have begun and not ended."""
        from optuna.trial import TrialState

        return [trial for trial in self.trials() if trial.state == TrialState.RUNNING]

    def next_trial(self) -> Claimed | None:
        """Take over a trial of a process that has died, or begin a new one; None if neither is there."""
        with self.locked():
            for found in self.running():
                claim = self._watch(found.number).try_take()
                if claim is not None:
                    return self._claimed(self._taken_over(found), claim, taken_over=True)
            begun = len(self.trials())
            return None if begun >= self.total else self._begin(begun)

    def _begin(self, number: int) -> Claimed:
        # Each trial has its own seed: processes that start together must not try the same values.
        self.study.sampler = _sampler(self.sweep, number)
        if self._points and not self._waiting():
            self.study.enqueue_trial(self._points[number])
        trial = self.study.ask()
        claim = self._watch(trial.number).try_take()
        assert claim is not None, "only the holder of the study's lock begins a trial"
        return self._claimed(trial, claim, taken_over=False)

    def _waiting(self) -> bool:
        """Return True if a point is in the queue: its process died before it began the trial, which `ask` now does."""
        return len(self.trials()) < len(self.study.get_trials(deepcopy=False))

    def _taken_over(self, found: "FrozenTrial") -> "Trial":
        from optuna import Trial

        self.study.sampler = _sampler(self.sweep, found.number)
        return Trial(self.study, found._trial_id)

    def _claimed(self, trial: "Trial", claim: Lease, taken_over: bool) -> Claimed:
        values = {key: part.suggest(trial, key) for key, part in self.sweep.space.items()}
        return Claimed(trial, values, claim, taken_over)

    def _watch(self, number: int) -> LeaseWatch:
        if number not in self._watches:
            self._watches[number] = LeaseWatch(self.folder / CLAIMS / f"trial-{number}", self._times)
        return self._watches[number]

    def end(self, claimed: Claimed, state: str, value: float | None = None, reason: str = "") -> None:
        """Record how a trial ended: "complete" with its value, "pruned" or "fail"; nothing if its claim is lost."""
        from optuna.trial import TrialState

        with self.locked():
            if claimed.claim.lost:
                return
            if reason:
                claimed.trial.set_user_attr("reason", reason)
            self.study.tell(claimed.trial, value, state=TrialState[state.upper()])


def _nothing() -> None:
    """Never be ready: the lock has no result that another process could produce."""


def _open(sweep: Sweep) -> "Study":
    import optuna

    from ftsys.sweep.journal import WRONG, check_values, open_journal

    optuna.logging.set_verbosity(logging.WARNING)
    path = sweep.folder / JOURNAL
    _check_journal(sweep.folder)
    try:
        study = optuna.create_study(
            storage=open_journal(path),
            study_name="sweep",
            direction="maximize" if sweep.maximize else "minimize",
            pruner=_pruner(sweep),
            load_if_exists=True,
        )
        check_values(study)
        _check_same(study, sweep)
    except WRONG as error:
        raise ConfigError(
            f"{str(path)!r} is not the journal of a sweep, or is damaged ({type(error).__name__}: {error}): use "
            f"another --output, or remove {str(sweep.folder)!r}."
        ) from error
    return study


def _check_journal(folder: Path) -> None:
    """Raise ConfigError for trials without a journal: a new study would take their claims and metrics for its own."""
    trials = [*folder.glob("trial-*"), *(folder / CLAIMS).glob("trial-*")]
    if trials and not (folder / JOURNAL).exists():
        raise ConfigError(
            f"{str(folder)!r} has trials of a sweep (such as {trials[0].name}), but no {JOURNAL}: use another "
            "--output, or remove the folder."
        )


def _check_same(study: "Study", sweep: Sweep) -> None:
    """Record what the study is about in a new one. Raises ConfigError if it is about something else."""
    mine: dict[str, Any] = {"space": texts_of(sweep.space), "objective": sweep.objective, "run": sweep.identity}
    # The number of a grid's trial is its point's place, so no other sampler may have begun the study.
    mine["grid"] = sweep.settings.sampler == "grid"
    theirs = {"grid": mine["grid"], **study.user_attrs}  # studies of earlier versions do not say it
    if not study.user_attrs:
        for name, value in mine.items():
            study.set_user_attr(name, value)
        return
    changed = [name for name, value in mine.items() if theirs.get(name) != value]
    if changed:
        raise ConfigError(
            f"{str(sweep.folder)!r} holds a study of another {' and '.join(changed)}: {_difference(theirs, mine)}. Use "
            "another --output, or the former settings."
        )


def _difference(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    before, now = theirs.get("space") or {}, mine["space"]
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    parts = [f"{key} was {before.get(key, 'not in it')} and is {now.get(key, 'not in it')}" for key in keys]
    if theirs.get("objective") != mine["objective"]:
        parts.append(f"the objective was {theirs.get('objective')} and is {mine['objective']}")
    if theirs["grid"] != mine["grid"]:
        parts.append(f"its sampler {'is' if theirs['grid'] else 'is not'} grid")
    return "; ".join(parts) or "the run file has another task, data, model, batch or train section"


def _sampler(sweep: Sweep, number: int) -> "BaseSampler":
    from optuna.samplers import RandomSampler, TPESampler

    kind = TPESampler if sweep.settings.sampler == "tpe" else RandomSampler
    return kind(seed=(sweep.run.train.seed + 7919 * number) % 2**32)


def _pruner(sweep: Sweep) -> "BasePruner":
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    if sweep.settings.pruner == "median":
        return MedianPruner()
    return (
        SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
        if sweep.settings.pruner == "halving"
        else NopPruner()
    )
