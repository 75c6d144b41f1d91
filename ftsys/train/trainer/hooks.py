"""Defines the hooks through which a run follows and steers its Trainer."""

from collections.abc import Callable
from dataclasses import dataclass

from ftsys.errors import FtsysError


def _ignore(*values: object) -> None:
    pass


def _no() -> bool:
    return False


@dataclass(frozen=True)
class RunHooks:
    """Callables of a run. The defaults do nothing, so a script that makes a Trainer gives none."""

    on_evaluation_progress: Callable[[str, int, int], object] = _ignore
    """Called with (name of the split, examples done, examples in all) while a split is evaluated."""
    stop_wanted: Callable[[], bool] = _no
    """Asked between two packs of an evaluation; True on any rank ends it on all with EvaluationStopped."""
    evaluation_owed: Callable[[], bool] = _no
    """Asked at each save: True when the step is due an evaluation that only the next attempt will make."""
    on_saving_error: Callable[[FtsysError], object] = _ignore
    """Called on every rank, from a background thread, when a checkpoint could not be written."""
