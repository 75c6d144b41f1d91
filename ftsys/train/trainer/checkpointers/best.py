"""Finds the best checkpoint so far of a run that is resumed, with whose weights train.keep_best ends it."""

from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from ftsys.config import RunConfig
from ftsys.errors import CheckpointError
from ftsys.files.integrity import damage_of
from ftsys.run_folder.layout import TRAINER_STATE
from ftsys.train.checkpoint.catalog import Checkpoint, step_folder
from ftsys.train.checkpoint.files import read_json


class _Best(TypedDict):
    """The keys of trainer_state.json that name the best checkpoint."""

    best_global_step: NotRequired[int | None]
    best_model_checkpoint: NotRequired[str | None]


def best_checkpoint(resumed: Path, step: int, recorded: str | None) -> Path:
    """Return the folder of the best step so far: beside the checkpoint that is resumed, else where that one says.

    A folder may have been moved since, and a run may go on in a new folder without the older checkpoints.
    """
    beside = step_folder(resumed.resolve().parent, step)
    return beside if recorded is None or beside.is_dir() else Path(recorded)


def refuse_without_best(run: RunConfig, resumed: Checkpoint) -> None:
    """Raise CheckpointError where the best checkpoint so far would be missed once the training has ended."""
    ends_with_best = run.train.keep_best or run.trainer.get("load_best_model_at_end")
    if not ends_with_best or TRAINER_STATE not in resumed.files:
        return
    state: _Best = read_json(resumed.path / TRAINER_STATE, _Best)
    step = state.get("best_global_step")
    if step is None:
        return
    best = best_checkpoint(resumed.path, step, state.get("best_model_checkpoint"))
    try:
        damage = damage_of(best, Checkpoint.open(best).files, contents=False)
    except CheckpointError as error:
        damage = [str(error)]
    if damage:
        raise CheckpointError(
            f"train.resume={str(resumed.path)!r} cannot be resumed: the run ends with its best model, so far that of "
            f"step {step}, but {'; '.join(damage)}. Put that checkpoint there, or name another one."
        )
