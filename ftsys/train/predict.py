"""Implements `ftsys evaluate` and `ftsys predict`: a run folder's trained model on its splits, on any ranks."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ftsys.config import RunConfig, resolve_task
from ftsys.errors import DONE, ConfigError
from ftsys.fast_import.hooks import end_fast_import
from ftsys.files.paths import check_output
from ftsys.labels import as_seen
from ftsys.model_files.config import holds_model, model_config
from ftsys.model_files.head_order import head_names
from ftsys.ranks import is_main_rank
from ftsys.report.log_filters import quiet_libraries
from ftsys.report.progress import SplitProgress
from ftsys.run_folder.layout import MODEL, PREDICTIONS, SUBMISSION
from ftsys.run_folder.results import are_of_store, read_results
from ftsys.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel

from ftsys.data.store.reader import Store


def evaluate(run: RunConfig) -> int:
    """Print the metrics of the evaluation splits under RUN_DIR/model. Writes nothing."""
    return _use(run, None)


def predict(run: RunConfig, output: Path | None = None) -> int:
    """Write predictions and submission for every evaluation and test split, and print the metrics.

    They go to RUN_DIR, or to `output`. Raises ConfigError where they would replace those of the run, of other data,
    and for a file.
    """
    if output is not None:
        check_output("--output", output, folder=True)
    return _use(run, output or Path(run.output_dir))


def _use(run: RunConfig, output: Path | None) -> int:
    from ftsys.data.prepare import ensure_store

    quiet_libraries()
    task, model_folder = resolve_task(run), Path(run.output_dir) / MODEL
    _check_trained_for(task, model_folder)
    with SplitProgress("prepare") as progress:
        store = ensure_store(run, task, progress)
    from ftsys.train.setup import load_trained

    names = _names(task, store, predicting=output is not None)
    if output is not None:
        check_replaceable(output, store, names, "write them elsewhere, with --output FOLDER")
    with tempfile.TemporaryDirectory() as scratch:
        model = load_trained(model_folder, task, run.model.trust_remote_code)
        found = predict_splits(run, task, model, store, names, scratch, output)
    if is_main_rank():
        _print_metrics(f"{task.name}, model in {model_folder}", found, output)
    return DONE


def _names(task: Task, store: Store, predicting: bool) -> list[str]:
    """Return the splits to use. Raises ConfigError if there is none."""
    wanted = (*task.evaluation_splits, *(task.test_splits if predicting else ()))
    names = [name for name in wanted if name in store.splits]
    if not names:
        raise ConfigError(
            f"task {task.name!r} has no split to {'predict' if predicting else 'evaluate'}: the source has "
            f"{sorted(store.splits)}" + ("." if predicting else ", and `ftsys predict` takes those without labels.")
        )
    return names


def check_replaceable(folder: Path, store: Store, names: Sequence[str], advice: str) -> None:
    """Raise ConfigError if `folder` is a run's, and its predictions of one of these splits are of other data."""
    results = read_results(folder) or {}
    mine = {name for name in names if name in results.get("metrics", {})}
    if mine and not are_of_store(results, store.fingerprint):
        raise ConfigError(
            f"predictions of {', '.join(sorted(mine))} in {str(folder / PREDICTIONS)!r} belong to results.json, and "
            f"this is other data (or another data.max_length): {advice}."
        )


def predict_splits(
    run: RunConfig,
    task: Task,
    model: PreTrainedModel,
    store: Store,
    names: Sequence[str],
    scratch: str,
    output: Path | None,
) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    """Predict splits with a trained model; returns metrics and speed by split. Collective; leaves the process group.

    Rank 0 writes the predictions below `output`, unless that is None. `scratch` is as for `prediction_trainer`.
    When a rank dies or is cut off, each other one ends with a message and FAILED.
    """
    from ftsys.data.label_values import check_labels
    from ftsys.distributed import decided_by_rank_0, stay_on_loopback
    from ftsys.train.fault_tolerance.without_run import watchdog_without_run
    from ftsys.train.finish import speed_of, split_metrics, write_split_predictions
    from ftsys.train.setup import prediction_trainer
    from ftsys.train.trainer.hooks import RunHooks

    predicted = {}
    for name in names:
        check_labels(store.splits[name], task)
    watchdog = watchdog_without_run("predict", "Start the same command again.")
    stay_on_loopback()
    with SplitProgress("predict") as progress, watchdog.watching():
        hooks = RunHooks(on_evaluation_progress=lambda name, done, total: progress(done, total, name))
        trainer = prediction_trainer(run, model, store, scratch, hooks)
        watchdog.begin(trainer.args.process_index, trainer.args.world_size)
        end_fast_import()
        for name in names:
            split = store.splits[name]
            speed = speed_of(trainer.predict(split).metrics, "test_")
            found = trainer.parts.evaluator.predictions[name]
            predicted[name] = split_metrics(task, found, split), speed
            if output is not None:
                decided_by_rank_0(partial(write_split_predictions, output, task, name, found, split))
    trainer.end()
    return predicted


def _print_metrics(
    title: str, predicted: Mapping[str, tuple[dict[str, float], dict[str, float]]], output: Path | None
) -> None:
    from ftsys.report.table import Row, print_final

    rows, notes = [], []
    for name, (metrics, _) in predicted.items():
        examples, loss = int(metrics.pop("examples")), metrics.pop("loss", None)
        rows.append(Row(split=name, eval_loss=loss, metrics=metrics, rows=examples))
        notes += [] if metrics else [f"{name} has no labels, so it has no metrics"]
    places = {"predictions": output / PREDICTIONS} if output is not None else {}
    if output is not None and (output / SUBMISSION).is_dir():
        places["submission"] = output / SUBMISSION
    print_final(rows, title=title, places=places, notes=notes)


def _check_trained_for(task: Task, model_folder: Path) -> None:
    """Raise ConfigError unless the folder holds a model whose head has the task's classes, in any order."""
    if not holds_model(model_folder):
        raise ConfigError(f"{str(model_folder)!r} holds no trained model. Run `ftsys train` with this run file first.")
    names = head_names(f"model {str(model_folder)!r}", model_config(model_folder))
    if len(names) != task.num_outputs or set(map(as_seen, names)) != set(map(as_seen, task.labels or ["score"])):
        raise ConfigError(
            f"the model in {str(model_folder)!r} was trained for labels {names}, task {task.name!r} has "
            f"{list(task.labels)}. Give the run file that it was trained with."
        )
