"""Evaluates a split: packs -> predictions in data set order -> the output that the stock evaluation loop returns."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer
from transformers.trainer_pt_utils import nested_numpify
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, denumpify_detensorize

from ftsys.data.batching.collate import Batch
from ftsys.data.batching.loader import EvaluationLoader, Split
from ftsys.distributed import any_rank, decided_by_rank_0, world_size
from ftsys.errors import ConfigError
from ftsys.files.json_safe import json_safe
from ftsys.models.inputs import model_inputs
from ftsys.models.onednn.inference import prepacked
from ftsys.train.deepspeed_setup import whole_weights
from ftsys.train.perf.throughput import Meter
from ftsys.train.trainer.hooks import RunHooks
from ftsys.train.trainer.packing import Packing
from ftsys.train.trainer.predictions import Predictions, predict_all


class Evaluator:
    """Predicts splits by packs and keeps the last predictions of each. Its methods take the Trainer that evaluates."""

    def __init__(
        self, packing: Packing, meter: Meter, hooks: RunHooks, filters_losses: Callable[[Any], bool] = lambda _: False
    ) -> None:
        """Leave evaluations out of `meter`'s rate; tell `hooks` the progress, and ask them when to stop.

        `filters_losses(args)` says whether the mean loss leaves out losses that are not finite, as the stock one does.
        """
        self._filters_losses = filters_losses
        self.seconds = 0.0
        """Spent in evaluations so far."""
        self.predictions: dict[str, Predictions] = {}
        """By the split's name."""
        self._owed: tuple[str, bool] | None = None
        """Checkpoint whose evaluation is still to be made, and the user's `eval_on_start`; None where there is none."""
        self._packing, self._meter, self._hooks = packing, meter, hooks
        self._weights_version = 0
        self._predicted_at: dict[str, tuple[int, int]] = {}

    def run(
        self, trainer: Trainer, loader: EvaluationLoader, loss_only: bool | None, metric_key_prefix: str
    ) -> EvalLoopOutput:
        """Return predictions in data set order; rank 0 computes the metrics for all ranks. Collective."""
        start, split = time.perf_counter(), loader.dataset
        trainer.callback_handler.eval_dataloader = loader.for_callbacks()
        found = self._predict(trainer, loader)
        self.predictions[split.name] = found
        self._predicted_at[split.name] = self._weights_of(trainer)
        loss_only = trainer.args.prediction_loss_only if loss_only is None else loss_only
        mean_loss = _mean(found.losses, finite_only=self._filters_losses(trainer.args))
        output = _loop_output(trainer, found, split, loss_only, metric_key_prefix, mean_loss)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        self._meter.pause(seconds)
        return output

    def is_current(self, trainer: Trainer, name: str) -> bool:
        """Return True where `predictions[name]` were made with the present weights."""
        return self._predicted_at.get(name) == self._weights_of(trainer)

    def owe(self, args: Any, checkpoint: str) -> None:
        """Have training begin with the evaluation of the step of `checkpoint`, from which it resumes."""
        self._owed, args.eval_on_start = (checkpoint, args.eval_on_start), True

    def take_owed(self, args: Any) -> str | None:
        """Return the checkpoint whose evaluation is owed, once; `args` are then as before."""
        if self._owed is None:
            return None
        (checkpoint, args.eval_on_start), self._owed = self._owed, None
        return checkpoint

    def weights_replaced(self) -> None:
        """Note that the weights have changed without a training step."""
        self._weights_version += 1

    def _weights_of(self, trainer: Trainer) -> tuple[int, int]:
        return trainer.state.global_step, self._weights_version

    def _predict(self, trainer: Trainer, loader: EvaluationLoader) -> Predictions:
        split, model = loader.dataset, _evaluation_model(trainer)
        model.eval()
        if callable(getattr(trainer.optimizer, "eval", None)):
            trainer.optimizer.eval()

        def forward(batch: Batch) -> torch.Tensor:
            with trainer.compute_loss_context_manager():
                return model(**model_inputs(batch, self._packing.view)).logits

        def progress(done: int) -> None:
            self._hooks.on_evaluation_progress(split.name, done, len(split))
            trainer.callback_handler.on_prediction_step(trainer.args, trainer.state, trainer.control)

        # The stock evaluation smooths labels as its training does; a store's eval_loss is the plain one.
        smoothing = trainer.args.label_smoothing_factor if split.stock_semantics else 0.0
        stopping = self._hooks.stop_wanted
        if any(hasattr(weight, "ds_id") for weight in model.parameters()):
            # Each pass gathers weights from all ranks, so they can only leave after the same pack.
            stopping = partial(_any_rank_stops, self._hooks.stop_wanted, trainer.args.device)
        # Before the first training there is no engine yet that gathers the weights of each layer.
        with contextlib.nullcontext() if trainer.deepspeed is not None else whole_weights(model), prepacked(model):
            return predict_all(loader, forward, trainer.args.device, progress, stopping, smoothing)


def _any_rank_stops(stop_wanted: Callable[[], bool], device: torch.device) -> bool:
    return any_rank(stop_wanted(), device)


def _mean(losses: np.ndarray, finite_only: bool) -> float:
    """Return the mean of the losses; with `finite_only` that of the finite ones, if there are any."""
    finite = np.isfinite(losses)
    return float(np.mean(losses[finite] if finite_only and finite.any() else losses, dtype=np.float64))


def _loop_output(
    trainer: Trainer, found: Predictions, split: Split, loss_only: bool, prefix: str, mean_loss: float
) -> EvalLoopOutput:
    """Return the same types as the stock loop."""
    labels = split.labels.astype(split.label_type, copy=False) if split.labelled else None
    predictions = None if loss_only else _preprocessed(trainer.preprocess_logits_for_metrics, found.logits, labels)
    metrics = decided_by_rank_0(lambda: _metrics(trainer, predictions, labels, found))
    if labels is not None:
        metrics |= {f"{prefix}_loss": mean_loss}
    if hasattr(trainer, "model_preparation_time") and split.stock_semantics:
        metrics["model_preparation_time"] = trainer.model_preparation_time
    for key in [key for key in metrics if not key.startswith(f"{prefix}_")]:  # a user's own "loss" replaces ours
        metrics[f"{prefix}_{key}"] = metrics.pop(key)
    return EvalLoopOutput(predictions, None if loss_only else labels, metrics, len(split))


def _preprocessed(preprocess: Callable[..., Any] | None, logits: np.ndarray, labels: np.ndarray | None) -> Any:
    """Apply `preprocess_logits_for_metrics`, where it is given, to the logits of all rows at once."""
    if preprocess is None:
        return logits
    known = None if labels is None else torch.tensor(labels)
    return nested_numpify(preprocess(torch.from_numpy(logits), known))


def _metrics(trainer: Trainer, predictions: Any, labels: np.ndarray | None, found: Predictions) -> dict[str, Any]:
    """Return what the user's `compute_metrics` returns, as plain numbers. Raises as `_for_other_ranks` does."""
    if labels is None or trainer.compute_metrics is None or predictions is None:
        return {}
    losses = {"losses": found.losses} if "loss" in trainer.args.include_for_metrics else {}
    found_by_user = trainer.compute_metrics(EvalPrediction(predictions=predictions, label_ids=labels, **losses))
    metrics = dict(denumpify_detensorize(found_by_user))
    return metrics if world_size() == 1 else _for_other_ranks(metrics)


def _for_other_ranks(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics as values that ranks can exchange: arrays and tuples become lists. Raises ConfigError."""
    try:
        return dict(json_safe(metrics, finite=False))
    except TypeError as error:
        raise ConfigError(
            f"compute_metrics gave what cannot go to the other ranks: {error}. Return numbers, text, or lists of them."
        ) from error


def _evaluation_model(trainer: Trainer) -> nn.Module:
    """Return the engine under DeepSpeed, once there is one; else the bare model, since nothing is reduced."""
    if trainer.deepspeed is not None:
        return trainer.deepspeed
    if not trainer.accelerator._models:
        start = time.perf_counter()
        trainer._move_model_to_device(trainer.model, trainer.args.device)
        trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)
        trainer.model_preparation_time = round(time.perf_counter() - start, 4)
    if not trainer.is_in_train and (trainer.args.fp16_full_eval or trainer.args.bf16_full_eval):
        trainer.model.to(torch.float16 if trainer.args.fp16_full_eval else torch.bfloat16)
    return trainer.model
