"""The evaluation loop of the Trainer over packs: predictions in data set order, metrics computed once."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.trainer_pt_utils import nested_numpify
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, denumpify_detensorize

from ftsys.data.batching.collate import Batch
from ftsys.data.batching.loader import EvaluationLoader, Split
from ftsys.data.store.reader import StoreSplit
from ftsys.distributed import decided_by_rank_0
from ftsys.models.inputs import model_inputs
from ftsys.train.trainer.arguments import setting
from ftsys.train.trainer.predictions import Predictions, predict_all
from ftsys.train.trainer.training_step import StepTrainer


class EvaluatingTrainer(StepTrainer):
    """Evaluates an `EvaluationLoader` by packs, any other loader as transformers does."""

    def __init__(self, *stock: Any, **named: Any) -> None:
        """As transformers'."""
        super().__init__(*stock, **named)
        self.evaluation_seconds = 0.0
        self.predictions: dict[str, Predictions] = {}
        self.predicted_at: dict[str, tuple[int, int]] = {}
        self.on_evaluation_progress: Callable[[str, int, int], None] = lambda name, done, total: None
        self.stop_wanted: Callable[[], bool] = lambda: False

    def pack_loader(self, split: Split) -> EvaluationLoader:
        """This rank's packs of a split."""
        ranks, rank = self.args.world_size, self.args.process_index
        return EvaluationLoader(split, setting(self.args, "micro_tokens"), rank, ranks, packed=self.view is not None)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Predictions in data set order on every rank; metrics computed by rank 0 and told to the others."""
        if not isinstance(dataloader, EvaluationLoader):
            return super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        start, split = time.perf_counter(), dataloader.dataset
        self.callback_handler.eval_dataloader = dataloader
        found = self._predict_split(dataloader)
        self.predictions[split.name] = found
        self.predicted_at[split.name] = (self.state.global_step, self.weights_version)
        loss_only = self.args.prediction_loss_only if prediction_loss_only is None else prediction_loss_only
        output = self._loop_output(found, split, loss_only, metric_key_prefix)
        self.evaluation_seconds += time.perf_counter() - start
        self.meter.pause(time.perf_counter() - start)
        return output

    def _predict_split(self, dataloader: EvaluationLoader) -> Predictions:
        split, model = dataloader.dataset, self._evaluation_model()
        model.eval()
        if callable(getattr(self.optimizer, "eval", None)):
            self.optimizer.eval()

        def forward(batch: Batch) -> torch.Tensor:
            with self.compute_loss_context_manager():
                return model(**model_inputs(batch, self.view)).logits

        def progress(done: int) -> None:
            self.on_evaluation_progress(split.name, done, len(split))
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)

        # The stock evaluation smooths labels as its training does; a store's eval_loss is the plain one.
        smoothing = 0.0 if isinstance(split, StoreSplit) else self.args.label_smoothing_factor
        return predict_all(dataloader, forward, self.args.device, progress, self.stop_wanted, smoothing)

    def _loop_output(self, found: Predictions, split: Split, loss_only: bool, prefix: str) -> EvalLoopOutput:
        """What the stock loop returns, of the same types."""
        labels = split.labels if split.labelled else None
        if labels is not None and not isinstance(split, StoreSplit):
            labels = labels.astype(split.label_type, copy=False)
        predictions = None if loss_only else self._as_metrics_want(found.logits, labels)
        metrics = decided_by_rank_0(lambda: self._metrics(predictions, labels, found, prefix))
        if hasattr(self, "model_preparation_time") and not isinstance(split, StoreSplit):
            metrics["model_preparation_time"] = self.model_preparation_time
        for key in [key for key in metrics if not key.startswith(f"{prefix}_")]:  # a "loss" of the user's own wins
            metrics[f"{prefix}_{key}"] = metrics.pop(key)
        return EvalLoopOutput(predictions, None if loss_only else labels, metrics, len(split))

    def _as_metrics_want(self, logits: np.ndarray, labels: np.ndarray | None) -> Any:
        """The logits, through `preprocess_logits_for_metrics` where there is one: once, for all rows."""
        if self.preprocess_logits_for_metrics is None:
            return logits
        known = None if labels is None else torch.tensor(labels)
        return nested_numpify(self.preprocess_logits_for_metrics(torch.from_numpy(logits), known))

    def _metrics(self, predictions: Any, labels: np.ndarray | None, found: Predictions, prefix: str) -> dict[str, Any]:
        if labels is None:
            return {}
        metrics: dict[str, Any] = {}
        if self.compute_metrics is not None and predictions is not None:
            losses = {"losses": found.losses} if "loss" in self.args.include_for_metrics else {}
            metrics.update(self.compute_metrics(EvalPrediction(predictions=predictions, label_ids=labels, **losses)))
        return denumpify_detensorize(metrics | {f"{prefix}_loss": float(np.mean(found.losses, dtype=np.float64))})

    def _evaluation_model(self) -> nn.Module:
        """The engine under DeepSpeed, whose partitions it gathers; else the bare model: nothing is reduced here."""
        if self.deepspeed is not None:
            return self.deepspeed
        if not self.accelerator._models:
            start = time.perf_counter()
            self._move_model_to_device(self.model, self.args.device)
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
            self.model_preparation_time = round(time.perf_counter() - start, 4)
        if not self.is_in_train and (self.args.fp16_full_eval or self.args.bf16_full_eval):
            self.model.to(torch.float16 if self.args.fp16_full_eval else torch.bfloat16)
        return self.model
