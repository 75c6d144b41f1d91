"""What a trained run leaves behind: predictions, the plain model, results.json. Every rank calls, rank 0 writes."""

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ftsys.data.bundle import model_folder_of
from ftsys.distributed import decided_by_rank_0
from ftsys.files import atomic_write_json, atomic_write_text, storage_errors
from ftsys.metrics import compute, predictions_from_logits
from ftsys.model_files.folder import BUNDLED, BUNDLED_MODEL, TOKENIZER_FILES
from ftsys.run_folder.environment import commit, versions
from ftsys.run_folder.layout import MODEL, TRAINER_STATE, predictions_file
from ftsys.run_folder.predictions import scores_from_logits, write_predictions, write_submission
from ftsys.run_folder.results import model_card, write_results
from ftsys.tasks import Task
from ftsys.train.perf.matmul_rate import matmul_rate
from ftsys.train.perf.throughput import Meter
from ftsys.train.session import Session, computed_dtype
from ftsys.train.trainer.predictions import EvaluationStopped, Predictions
from ftsys.train.trainer.trainer import Trainer, parameters_outside_embeddings


def finish(session: Session, prepare_seconds: float) -> dict[str, Any]:
    """Predict every split that is there, save the model, and write results.json last. Returns its content on rank 0."""
    metrics, speed = {}, {}
    try:
        for name in _splits_to_predict(session):
            session.stopping.leave_if_asked(session.trainer.args)
            metrics[name], speed[name] = _predict(session, name)
    except EvaluationStopped:
        raise session.stopping.interruption.error() from None
    model_folder = session.folder / MODEL
    session.trainer.save_plain_model(model_folder)
    rate = matmul_rate(computed_dtype(session.plan), session.trainer.args.device)
    session.timing |= {"prepare_s": prepare_seconds, "eval_s": session.trainer.evaluation_seconds}
    results = _results(session, metrics, rate) | {"evaluation_speed": speed}
    decided_by_rank_0(lambda: _write(session, results, model_folder))
    return results


def _splits_to_predict(session: Session) -> list[str]:
    wanted = (*session.task.evaluation_splits, *session.task.test_splits)
    return [name for name in wanted if name in session.store.splits]


def _predict(session: Session, name: str) -> tuple[dict[str, float], dict[str, float]]:
    """The split's metrics under the final weights, and how fast they came: as transformers counts it.

    What the last evaluation found already is not computed again.
    """
    trainer, split = session.trainer, session.store.splits[name]
    if trainer.predicted_at.get(name) != (trainer.state.global_step, trainer.weights_version):
        speed = speed_of(trainer.predict(split).metrics, "test_")
    else:
        several = len(session.task.evaluation_splits) > 1
        speed = speed_of(_last_logged(trainer, "eval_"), f"eval_{name}_" if several else "eval_")
    found = trainer.predictions[name]
    decided_by_rank_0(lambda: _write_predictions(session, name, found))
    return split_metrics(session.task, found, split), speed


def speed_of(logged: dict[str, Any], prefix: str) -> dict[str, float]:
    """Seconds, examples and steps a second, out of what transformers calls `PREFIXruntime` and the like."""
    names = ("runtime", "samples_per_second", "steps_per_second")
    return {name: float(logged[prefix + name]) for name in names if prefix + name in logged}


def _last_logged(trainer: Trainer, prefix: str) -> dict[str, Any]:
    """What the last evaluation of each split told: later lines stand over earlier ones."""
    lines = trainer.state.log_history
    return {key: value for line in lines for key, value in line.items() if key.startswith(prefix)}


def split_metrics(task: Task, found: Predictions, split: Any) -> dict[str, float]:
    """Metrics, mean loss and number of examples of one split; the number alone where it has no labels."""
    examples = {"examples": len(split)}
    if not split.labelled:
        return dict(examples)
    predictions = predictions_from_logits(found.logits, task.regression)
    loss = float(np.mean(found.losses, dtype=np.float64))
    return compute(task.metrics, predictions, split.labels) | {"loss": loss} | examples


def _write_predictions(session: Session, name: str, found: Predictions) -> None:
    task, split = session.task, session.store.splits[name]
    write_split_predictions(session.folder, task, name, found, split)


def write_split_predictions(folder: Path, task: Task, name: str, found: Predictions, split: Any) -> None:
    """predictions/SPLIT.tsv, and the GLUE server's file for a test split of a GLUE task."""
    ids = np.arange(len(split))
    predictions = predictions_from_logits(found.logits, task.regression)
    labels = split.labels if split.labelled else None
    scores = None if task.regression else scores_from_logits(found.logits)
    write_predictions(predictions_file(folder, name), ids, predictions, labels, scores, task)
    if name in task.test_splits:
        write_submission(folder, task, name, ids, predictions)


def _results(session: Session, metrics: dict[str, dict[str, float]], rate: float) -> dict[str, Any]:
    run, plan, trainer = session.run, session.plan, session.trainer
    session.timing["total_s"] = time.time() - psutil.Process().create_time()
    return {
        "task": session.task.name,
        "model": BUNDLED_MODEL if run.model.name == BUNDLED else run.model.name,
        "metrics": metrics,
        "world_size": trainer.args.world_size,
        "zero_stage": plan.zero_stage,
        "backend": plan.backend,
        "precision": plan.precision,
        "kernels": trainer.view.kernel if trainer.view else "stock",
        "layout": "packed" if trainer.view else "padded",
        "global_batch": plan.global_size or {"tokens": plan.global_tokens},
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "seed": run.train.seed,
        "throughput": _throughput(trainer, trainer.meter, session.timing["train_s"], rate),
        "timing": session.timing,
        "versions": versions(),
        "commit": commit(),
        "data": run.data.source,
        "store": str(session.store.path),
    }


def _throughput(trainer: Trainer, meter: Meter, seconds: float, rate: float) -> dict[str, float]:
    """Figures of this life's training; useful FLOPs are 6 x parameters outside the embeddings x real tokens."""
    tokens_per_s = meter.total_tokens / max(seconds, 1e-9)
    flops = 6 * parameters_outside_embeddings(trainer.model) * tokens_per_s
    return {
        "real_tokens_per_s": tokens_per_s,
        "samples_per_s": meter.total_examples / max(seconds, 1e-9),
        "padding_fraction": meter.padding_fraction,
        "useful_tflops": flops / 1e12,
        "mfu": flops / rate,
        "matmul_tflops": rate / 1e12,
    }


def _write(session: Session, results: dict[str, Any], model_folder: Path) -> None:
    source = model_folder_of(session.run)
    with storage_errors(model_folder):
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, model_folder / name)
    synthetic = results["data"] == "synthetic"
    card = results | {"global_batch": session.plan.global_size or f"{session.plan.global_tokens:,} tokens as"}
    atomic_write_text(model_folder / "README.md", model_card(card, synthetic=synthetic))
    atomic_write_json(session.folder / TRAINER_STATE, dataclasses.asdict(session.trainer.state))
    write_results(session.folder, results, session.claim.attempt)
