"""Finishes a trained run: predictions, the plain model, results.json. Every rank calls, rank 0 writes."""

import copy
import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

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
from ftsys.train.checkpoint.files import write_safetensors
from ftsys.train.checkpoint.state_dict import export_state
from ftsys.train.optimizer.master_adamw import masters_of
from ftsys.train.perf.matmul_rate import matmul_rate
from ftsys.train.session import Session
from ftsys.train.trainer.predictions import EvaluationStopped, Predictions
from ftsys.train.trainer.trainer import Trainer
from ftsys.train.trainer.training_step import parameters_outside_embeddings

COMPUTED_IN = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Type of the factors of a matrix product, by a plan's precision."""


def finish(session: Session) -> dict[str, Any]:
    """Predict every split that is there, save the model, and write results.json last. Returns its content on rank 0.

    Raises StoppedEarly after a signal.
    """
    metrics, speed = _predict_splits(session)
    save_plain_model(session.trainer, session.folder / MODEL)
    rate = matmul_rate(COMPUTED_IN[session.plan.precision], session.trainer.args.device)
    results = _results(session, metrics, rate) | {"evaluation_speed": speed}
    decided_by_rank_0(lambda: _write(session, results))
    return results


def _predict_splits(session: Session) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Return the metrics of each evaluation and test split that the store has, and how fast they were predicted."""
    metrics, speed = {}, {}
    wanted = (*session.task.evaluation_splits, *session.task.test_splits)
    try:
        for name in (name for name in wanted if name in session.store.splits):
            session.stopping.exit_if_requested(session.trainer.args)
            metrics[name], speed[name] = _predict(session, name)
    except EvaluationStopped:
        raise session.stopping.interruption.error() from None
    return metrics, speed


def _predict(session: Session, name: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the split's metrics under the final weights, and transformers' figures of the prediction's speed.

    Predictions that the last evaluation made are not computed again.
    """
    trainer, task, split = session.trainer, session.task, session.store.splits[name]
    if trainer.parts.evaluator.is_current(trainer, name):
        prefix = f"eval_{name}_" if len(task.evaluation_splits) > 1 else "eval_"
        speed = speed_of(_last_logged(trainer, "eval_"), prefix)
    else:
        speed = speed_of(trainer.predict(split).metrics, "test_")
    found = trainer.parts.evaluator.predictions[name]
    decided_by_rank_0(lambda: write_split_predictions(session.folder, task, name, found, split))
    return split_metrics(task, found, split), speed


def speed_of(logged: dict[str, Any], prefix: str) -> dict[str, float]:
    """Return seconds, examples and steps a second, which transformers calls `PREFIXruntime` and so on."""
    names = ("runtime", "samples_per_second", "steps_per_second")
    return {name: float(logged[prefix + name]) for name in names if prefix + name in logged}


def _last_logged(trainer: Trainer, prefix: str) -> dict[str, Any]:
    """Return the newest value of each key with that prefix in the log: that of each split's last evaluation."""
    lines = trainer.state.log_history
    return {key: value for line in lines for key, value in line.items() if key.startswith(prefix)}


def split_metrics(task: Task, found: Predictions, split: Any) -> dict[str, float]:
    """Return metrics, mean loss and number of examples of a split; the number alone where it has no labels."""
    examples = {"examples": len(split)}
    if not split.labelled:
        return dict(examples)
    predictions = predictions_from_logits(found.logits, task.regression)
    loss = float(np.mean(found.losses, dtype=np.float64))
    return compute(task.metrics, predictions, split.labels) | {"loss": loss} | examples


def write_split_predictions(folder: Path, task: Task, name: str, found: Predictions, split: Any) -> None:
    """Write predictions/SPLIT.tsv, and the GLUE server's file for a test split of a GLUE task."""
    ids = np.arange(len(split))
    predictions = predictions_from_logits(found.logits, task.regression)
    labels = split.labels if split.labelled else None
    scores = None if task.regression else scores_from_logits(found.logits)
    write_predictions(predictions_file(folder, name), ids, predictions, labels, scores, task)
    if name in task.test_splits:
        write_submission(folder, task, name, ids, predictions)


def save_plain_model(trainer: Trainer, folder: Path) -> None:
    """Write the float32 weights and the config for `from_pretrained`. Collective; rank 0 writes.

    Raises StorageError when the disk refuses; the checkpoints are complete then, and the same command goes on from the
    newest one.
    """
    state = export_state(trainer.model_wrapped, masters_of(trainer.optimizer))
    if trainer.args.process_index != 0:
        return
    config = copy.deepcopy(trainer.model.config)
    config.dtype = torch.float32  # that of the masters, whatever the engine computed in
    config.architectures = [type(trainer.model).__name__]
    with storage_errors(folder):
        config.save_pretrained(folder)
        tensors = {name: tensor.cpu() for name, tensor in (state.weights | state.buffers).items()}
        _replace_weights(folder / "model.safetensors", tensors)


def _replace_weights(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a weights file next to its place, then move it there. OSError leaves the former file and no other."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write_safetensors(partial, tensors)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _results(session: Session, metrics: dict[str, dict[str, float]], rate: float) -> dict[str, Any]:
    run, plan, trainer, view = session.run, session.plan, session.trainer, session.trainer.parts.packing.view
    started = psutil.Process().create_time()
    timing = session.timing | {"eval_s": trainer.parts.evaluator.seconds, "total_s": time.time() - started}
    return {
        "task": session.task.name,
        "model": BUNDLED_MODEL if run.model.name == BUNDLED else run.model.name,
        "metrics": metrics,
        "world_size": trainer.args.world_size,
        "zero_stage": plan.zero_stage,
        "backend": plan.backend,
        "precision": plan.precision,
        "kernels": view.kernel if view else "stock",
        "layout": "packed" if view else "padded",
        "global_batch": plan.global_size or {"tokens": plan.global_tokens},
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "seed": run.train.seed,
        "throughput": _throughput(trainer, timing["train_s"], rate),
        "timing": timing,
        "versions": versions(),
        "commit": commit(),
        "data": run.data.source,
        "store": str(session.store.path),
        "store_fingerprint": session.store.fingerprint,
        **_best(session),
    }


def _best(session: Session) -> dict[str, Any]:
    """Return metric, value and step of the best evaluation, whose weights the run ends with, if train.keep_best is."""
    state, name = session.trainer.state, session.run.train.keep_best
    if not name or state.best_global_step is None:
        return {}
    return {"best": {"metric": name, "value": state.best_metric, "step": state.best_global_step}}


def _throughput(trainer: Trainer, seconds: float, rate: float) -> dict[str, float]:
    """Return figures of this attempt's training; useful FLOPs are 6 x parameters outside embeddings x real tokens."""
    meter = trainer.parts.step.meter
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


def _write(session: Session, results: dict[str, Any]) -> None:
    source, model_folder = model_folder_of(session.run), session.folder / MODEL
    with storage_errors(model_folder):
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, model_folder / name)
    synthetic = results["data"] == "synthetic"
    card = results | {"global_batch": session.plan.global_size or f"{session.plan.global_tokens:,} tokens as"}
    atomic_write_text(model_folder / "README.md", model_card(card, synthetic=synthetic))
    atomic_write_json(session.folder / TRAINER_STATE, dataclasses.asdict(session.trainer.state))
    write_results(session.folder, results, session.claim.attempt)
