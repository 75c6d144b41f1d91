"""Implements `ftsys evaluate` and `ftsys predict`: a run folder's trained model on its splits, on any ranks."""

import tempfile
from functools import partial
from pathlib import Path

from ftsys.config import RunConfig, resolve_task
from ftsys.errors import DONE, ConfigError
from ftsys.fast_import.hooks import end_fast_import
from ftsys.model_files.config import model_config
from ftsys.ranks import is_main_rank
from ftsys.report.log_filters import quiet_libraries
from ftsys.report.progress import SplitProgress
from ftsys.run_folder.layout import MODEL, PREDICTIONS
from ftsys.tasks import Task


def evaluate(run: RunConfig) -> int:
    """Print the metrics of the evaluation splits under OUTPUT_DIR/model. Writes nothing."""
    return _use(run, write=False)


def predict(run: RunConfig) -> int:
    """Write OUTPUT_DIR/predictions and submission for every evaluation and test split, and print the metrics."""
    return _use(run, write=True)


def _use(run: RunConfig, write: bool) -> int:
    from ftsys.data.prepare import ensure_store

    quiet_libraries()
    task, folder = resolve_task(run), Path(run.output_dir)
    model_folder = folder / MODEL
    _check_trained_for(task, model_folder)
    with SplitProgress("prepare") as progress:
        store = ensure_store(run, task, progress)
    from ftsys.distributed import decided_by_rank_0
    from ftsys.report.table import Row, print_final
    from ftsys.train.finish import split_metrics, write_split_predictions
    from ftsys.train.setup import load_model, prediction_trainer
    from ftsys.train.trainer.hooks import RunHooks

    names = [*task.evaluation_splits, *(task.test_splits if write else ())]
    rows = []
    with SplitProgress("predict") as progress, tempfile.TemporaryDirectory() as scratch:
        hooks = RunHooks(on_evaluation_progress=lambda name, done, total: progress(done, total, name))
        trainer = prediction_trainer(run, load_model(model_folder, task, run.train.seed)[0], store, scratch, hooks)
        end_fast_import()
        for name in (name for name in names if name in store.splits):
            split = store.splits[name]
            trainer.predict(split)
            found = trainer.parts.evaluator.predictions[name]
            metrics = split_metrics(task, found, split)
            examples = int(metrics.pop("examples"))
            rows.append(Row(split=name, eval_loss=metrics.pop("loss", None), metrics=metrics, rows=examples))
            if write:
                decided_by_rank_0(partial(write_split_predictions, folder, task, name, found, split))
    if is_main_rank():
        places = {"predictions": folder / PREDICTIONS} if write else {}
        print_final(rows, title=f"{task.name}, model in {model_folder}", places=places)
    trainer.end()
    return DONE


def _check_trained_for(task: Task, model_folder: Path) -> None:
    """Raise ConfigError unless the folder holds a model whose head has the task's outputs, in the task's order."""
    if not (model_folder / "config.json").exists():
        raise ConfigError(f"{str(model_folder)!r} holds no trained model. Run `ftsys train` with this run file first.")
    names = model_config(model_folder).get("id2label", {})
    labels = [names[key] for key in sorted(names, key=int)]
    if labels != (list(task.labels) or ["score"]):
        raise ConfigError(
            f"the model in {str(model_folder)!r} was trained for labels {labels}, task {task.name!r} has "
            f"{list(task.labels)}. Give the run file that it was trained with."
        )
