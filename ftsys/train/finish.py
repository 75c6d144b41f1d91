"""Finishes a trained run: predictions, the plain model, results.json. Every rank calls, rank 0 writes."""

import copy
import dataclasses
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ftsys.config import RunConfig
from ftsys.data.bundle import model_folder_of
from ftsys.distributed import all_gather_json, decided_by_rank_0
from ftsys.files.atomic import atomic_copy, atomic_write_json, atomic_write_text
from ftsys.files.folders import sync_folder, sync_tree
from ftsys.files.json_safe import json_safe
from ftsys.files.storage_errors import storage_errors
from ftsys.files.untrusted import file_bytes, json_object, typed
from ftsys.metrics import metrics_of_logits, predictions_from_logits
from ftsys.model_files.config import ADAPTED_CONFIG, own_outputs
from ftsys.model_files.folder import BUNDLED, BUNDLED_MODEL, TOKENIZER_FILES
from ftsys.model_files.remote_code import code_files
from ftsys.run_folder.environment import commit, versions
from ftsys.run_folder.layout import ADAPTER, MODEL, MODEL_CARD, TRAINER_STATE, predictions_file
from ftsys.run_folder.model_card import model_card
from ftsys.run_folder.predictions import scores_of, write_predictions, write_submission
from ftsys.run_folder.report_facts import RankFacts, write_rank_facts
from ftsys.run_folder.results import write_results
from ftsys.tasks import Task
from ftsys.train.callbacks.energy import Reading, summed
from ftsys.train.callbacks.matmul_samples import MatmulSamples, share_of_peak
from ftsys.train.checkpoint.files import replace_safetensors
from ftsys.train.checkpoint.state_dict import FullState, export_state
from ftsys.train.optimizer.master_adamw import masters_of
from ftsys.train.session import Session, leave
from ftsys.train.trainable.lora import base_name, merged, save_adapter
from ftsys.train.trainer.predictions import EvaluationStopped, Predictions
from ftsys.train.trainer.trainer import Trainer
from ftsys.train.trainer.training_step import parameters_outside_embeddings

Facts = TypeVar("Facts", Reading, RankFacts)

FINAL_SAMPLES = 3
"""Samples of the matrix-product rate after the training."""


def finish(session: Session) -> dict[str, Any]:
    """Predict every split that is there, save the model, and write results.json last. Returns its content on rank 0.

    Raises StoppedEarly after a signal.
    """
    metrics, speed = _predict_splits(session)
    _save_model(session)
    for _ in range(FINAL_SAMPLES):
        session.matmul_samples.add(session.trainer.args.device)
    energy = summed(_of_all_ranks(session.energy.reading))
    results = _results(session, metrics) | {"evaluation_speed": speed, "energy": energy}
    ranks = _of_all_ranks(_facts_of_rank(session))
    decided_by_rank_0(lambda: _write(session, results, ranks))
    return results


def _predict_splits(session: Session) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Return the metrics of each evaluation and test split that the store has, and how fast they were predicted."""
    metrics, speed = {}, {}
    wanted = (*session.task.evaluation_splits, *session.task.test_splits)
    try:
        for name in (name for name in wanted if name in session.store.splits):
            if session.stopping.agree(session.trainer.args):
                leave(session)
            metrics[name], speed[name] = _predict(session, name)
    except EvaluationStopped:
        leave(session)
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
    loss = float(np.mean(found.losses, dtype=np.float64))
    return metrics_of_logits(task, found.logits, split.labels) | {"loss": loss} | examples


def write_split_predictions(folder: Path, task: Task, name: str, found: Predictions, split: Any) -> None:
    """Write predictions/SPLIT.tsv, and the GLUE server's file for a test split of a GLUE task."""
    ids = np.arange(len(split))
    predictions = predictions_from_logits(found.logits, task.regression, task.multi_label)
    labels = split.labels if split.labelled else None
    write_predictions(predictions_file(folder, name), ids, predictions, labels, scores_of(found.logits, task), task)
    if name in task.test_splits:
        write_submission(folder, task, name, ids, predictions)


def _save_model(session: Session) -> None:
    """Write RUN_DIR/model, and with `[lora]` the adapter, there or in RUN_DIR/adapter. Collective."""
    trainer, lora, folder = session.trainer, session.run.lora, session.folder
    state = export_state(trainer.model_wrapped, masters_of(trainer.optimizer))
    if trainer.args.process_index != 0:
        return
    state.weights |= session.originals
    outputs = own_outputs(model_folder_of(session.run))
    if lora.r is not None:
        adapter = folder / (ADAPTER if lora.merge else MODEL)
        with storage_errors(adapter):
            save_adapter(adapter, trainer.model, state.weights, lora, base_name(session.run))
            atomic_write_json(adapter / ADAPTED_CONFIG, plain_config(trainer.model).to_dict() | outputs)
        state.weights = merged(state.weights, lora)
    if lora.r is None or lora.merge:
        write_plain_model(trainer.model, state, folder / MODEL, outputs)


def save_plain_model(trainer: Trainer, folder: Path) -> None:
    """Write the float32 weights and the config for `from_pretrained`. Collective; rank 0 writes.

    Raises StorageError when the disk refuses; the checkpoints are complete then, and the same command goes on from the
    newest one.
    """
    state = export_state(trainer.model_wrapped, masters_of(trainer.optimizer))
    if trainer.args.process_index == 0:
        write_plain_model(trainer.model, state, folder)


def plain_config(model: PreTrainedModel) -> PreTrainedConfig:
    """Return the config of the model that is written: its precision is that of the masters."""
    config = copy.deepcopy(model.config)
    config.dtype = torch.float32  # whatever the engine computed in
    config.architectures = [type(model).__name__]
    return config


def write_plain_model(
    model: PreTrainedModel, state: FullState, folder: Path, outputs: Mapping[str, Any] | None = None
) -> None:
    """Write the config of `model`, with `outputs` over it, and the weights of `state`. Raises StorageError."""
    with storage_errors(folder):
        _save_config(plain_config(model), folder, outputs)
        tensors = {name: tensor.cpu() for name, tensor in (state.weights | state.buffers).items()}
        replace_safetensors(folder / "model.safetensors", tensors)


def _save_config(config: PreTrainedConfig, folder: Path, outputs: Mapping[str, Any] | None = None) -> None:
    """Write a config as transformers does, beside the former one, and put its files into `folder`, each whole.

    `outputs` come last: transformers saves no `output_attentions` of a model whose attention returns none.
    """
    made = folder / ".config.partial"
    shutil.rmtree(made, ignore_errors=True)  # of a process that was killed
    try:
        config.save_pretrained(made)
        _write_over(made / "config.json", outputs)
        sync_tree(made)
        for source in sorted(made.iterdir()):
            source.replace(folder / source.name)
        sync_folder(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_over(path: Path, values: Mapping[str, Any] | None) -> None:
    """Replace keys of a JSON file that was just written."""
    if values:
        atomic_write_json(path, json_object(file_bytes(path)) | dict(values))


def _results(session: Session, metrics: dict[str, dict[str, float]]) -> dict[str, Any]:
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
        **trained_results(run),
        "throughput": _throughput(trainer, timing["train_s"], session.matmul_samples),
        "timing": timing,
        "versions": versions(),
        "commit": commit(),
        **_weights(session),
        "data": run.data.source,
        "store": str(session.store.path),
        "store_fingerprint": session.store.fingerprint,
        **_best(session),
    }


def _best(session: Session) -> dict[str, Any]:
    """Return metric, value and step of the best evaluation, whose weights the run ends with, if train.keep_best is."""
    state, name = session.trainer.state, session.run.train.keep_best
    if not name or state.best_model_checkpoint is None:
        return {}
    return {"best": {"metric": name, "value": state.best_metric, "step": state.best_global_step}}


def _weights(session: Session) -> dict[str, dict[str, float]]:
    """Return the weight of each label by name, where the loss has any."""
    values = session.trainer.parts.data_path.class_weights.values
    return {} if values is None else {"class_weights": dict(zip(session.task.labels, values, strict=True))}


def trained_results(run: RunConfig) -> dict[str, Any]:
    """Return the settings that decide which weights were trained, and their rates; none where all were, at one rate."""
    lora, train = run.lora, run.train
    return {
        **({"lora": lora.model_dump(mode="json")} if lora.r is not None else {}),
        **({"freeze": list(train.freeze)} if train.freeze else {}),
        **({"layer_decay": train.layer_decay} if train.layer_decay < 1 else {}),
    }


def _throughput(trainer: Trainer, seconds: float, samples: MatmulSamples) -> dict[str, float | None]:
    """Return figures of this attempt's training; useful FLOPs are 6 x parameters outside embeddings x real tokens.

    "mfu" is their part of the best measured rate of matrix products, None where that was measured too low.
    """
    meter = trainer.parts.step.meter
    tokens_per_s = meter.total_tokens / max(seconds, 1e-9)
    flops = 6 * parameters_outside_embeddings(trainer.model) * tokens_per_s
    return {
        "real_tokens_per_s": tokens_per_s,
        "samples_per_s": meter.total_examples / max(seconds, 1e-9),
        "padding_fraction": meter.padding_fraction,
        "useful_tflops": flops / 1e12,
        "mfu": share_of_peak(flops, samples.best),
        "matmul_tflops": samples.best / 1e12,
        "matmul_samples": len(samples.rates),
    }


def _facts_of_rank(session: Session) -> RankFacts:
    """Return this rank's tokens and memory in this attempt, with the numbers of its steps in the whole run."""
    meter, trainer = session.trainer.parts.step.meter, session.trainer
    before = trainer.state.global_step - meter.steps
    steps = [(before + step, tokens, memory) for step, tokens, memory in meter.history]
    return RankFacts(trainer.args.process_index, socket.gethostname(), meter.own_tokens, meter.computed_tokens, steps)


def _of_all_ranks(own: Facts) -> list[Facts]:
    """Return the facts of every rank, by rank. Collective."""
    return [typed(type(own), facts) for facts in all_gather_json(json_safe(dataclasses.asdict(own), finite=False))]


def _write(session: Session, results: dict[str, Any], ranks: list[RankFacts]) -> None:
    source, model_folder = model_folder_of(session.run), session.folder / MODEL
    code = code_files(source) if session.run.model.trust_remote_code else ()
    with storage_errors(model_folder):
        for name in (*TOKENIZER_FILES, *code):
            if (source / name).is_file():
                atomic_copy(source / name, model_folder / name)
    atomic_write_text(model_folder / MODEL_CARD, model_card(results, session.run, session.task))
    atomic_write_json(session.folder / TRAINER_STATE, dataclasses.asdict(session.trainer.state))
    if len(ranks) > 1:
        write_rank_facts(session.folder, ranks)
    write_results(session.folder, results, session.claim.attempt)
