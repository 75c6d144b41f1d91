"""Collects metrics for the example script's files: from a finished run folder, or by predicting without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import TypedDict

from ftsys.config import RunConfig
from ftsys.errors import ConfigError, DamagedError
from ftsys.files.untrusted import MOST_GROWN_BYTES, file_bytes, json_object, typed
from ftsys.run_folder.layout import PLAN, TRAINER_STATE
from ftsys.run_folder.results import read_results
from ftsys.tasks import Task

T = TypeVar("T")
_SUMMARY = ("train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "epoch")


@dataclass(frozen=True)
class RunResults:
    """Metrics and speed by split, as in results.json, and the Trainer's summary of `training` by its own keys."""

    metrics: Mapping[str, Mapping[str, float]]
    speed: Mapping[str, Mapping[str, float]]
    training: Mapping[str, float] = field(default_factory=dict)


def results_of_run(folder: Path) -> RunResults:
    """Read the results of a finished run folder. Raises DamagedError for a file that cannot be read."""
    results = read_results(folder) or {}
    rows = _read(folder / PLAN, _Plan)["train_rows"]
    summary: dict[str, float] = {}
    for line in _read(folder / TRAINER_STATE, _State)["log_history"]:
        if "train_runtime" in line:  # the last one counts: a resumed run has one for each attempt
            summary = {key: line[key] for key in _SUMMARY if key in line}
    return RunResults(
        results.get("metrics", {}), results.get("evaluation_speed", {}), summary | {"train_samples": rows}
    )


class _Plan(TypedDict):
    """The key of plan.json that is needed."""

    train_rows: int


class _State(TypedDict):
    """The key of trainer_state.json that is needed."""

    log_history: list[dict[str, Any]]


def _read(path: Path, kind: type[T]) -> T:
    try:
        return typed(kind, json_object(file_bytes(path, MOST_GROWN_BYTES)))
    except (OSError, ValueError) as error:
        raise DamagedError(
            f"{str(path)!r} cannot be read ({error}): train again with --overwrite_output_dir, or name another "
            "--output_dir."
        ) from error


def predict_only(run: RunConfig, task: Task, names: Sequence[str]) -> RunResults:
    """Predict splits with an already trained model. Call it on every rank; rank 0 writes the run folder's predictions.

    Raises ConfigError for a split that the source does not have, and for a model without a trained head.
    """
    from ftsys.data.bundle import model_folder_of
    from ftsys.data.prepare import ensure_store
    from ftsys.report.progress import SplitProgress
    from ftsys.train.predict import check_replaceable, predict_splits
    from ftsys.train.setup import load_model

    with SplitProgress("prepare") as progress:
        store = ensure_store(run, task, progress)
    missing = [name for name in names if name not in store.splits]
    ConfigError.raise_if(f"the source has no split {name!r}; it has {sorted(store.splits)}." for name in missing)
    check_replaceable(Path(run.output_dir), store, names, "name another --output_dir")
    model, fresh = load_model(model_folder_of(run), task, run.train.seed, run.model.head, run.model.trust_remote_code)
    if fresh:
        raise ConfigError(
            f"--model_name_or_path {run.model.name!r} is not trained for a task of {task.num_outputs} output(s) "
            f"({', '.join(fresh)} would be made anew): add --do_train, or name a folder with a trained classifier."
        )
    predicted = predict_splits(run, task, model, store, names, run.output_dir, Path(run.output_dir))
    metrics, speed = ({name: pair[kind] for name, pair in predicted.items()} for kind in (0, 1))
    return RunResults(metrics, speed)
