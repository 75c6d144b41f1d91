"""Overrides methods of transformers' Trainer, and delegates each to a part that the Trainer is composed of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput, TrainOutput

from ftsys.data.batching.loader import EvaluationLoader, is_split
from ftsys.models.families import why_not_packable
from ftsys.train.optimizer.given import check_given
from ftsys.train.optimizer.master_adamw import masters_of, with_masters
from ftsys.train.trainable.layer_decay import arrange_groups
from ftsys.train.trainer.arguments import setting
from ftsys.train.trainer.checkpointers.interface import Checkpointer
from ftsys.train.trainer.checkpointers.restore import (
    Restoration,
    refuse_unknown_keys,
    restore_rng_state,
    weights_come_later,
)
from ftsys.train.trainer.checkpointers.stock_layout import StockLayoutCheckpointer
from ftsys.train.trainer.data_path import DataPath
from ftsys.train.trainer.evaluation_loop import Evaluator
from ftsys.train.trainer.hooks import RunHooks
from ftsys.train.trainer.loss import gives_mean_of_batch
from ftsys.train.trainer.noise import noise_by_sequence, without_noise_afterwards
from ftsys.train.trainer.packing import Packing
from ftsys.train.trainer.training_step import StepEngine, local_batch_of


@dataclass(frozen=True)
class Parts:
    """The objects that a Trainer of ours is composed of."""

    checkpointer: Checkpointer
    packing: Packing
    data_path: DataPath
    step: StepEngine
    evaluator: Evaluator


class ComposedTrainer(transformers.Trainer):
    """transformers' Trainer over `parts`. Data sets may also be splits of a store."""

    def __init__(
        self,
        *stock: Any,
        checkpointer: Checkpointer | None = None,
        hooks: RunHooks | None = None,
        class_weights: Sequence[float] | None = None,
        **named: Any,
    ) -> None:
        """Take `stock` and `named` as transformers does; the rest, and TypeError, as `Trainer` describes them."""
        super().__init__(*stock, **named)
        check_given(self)
        packing = Packing(ComposedTrainer)
        data_path = DataPath(packing, class_weights)
        step = StepEngine(self.args, packing, data_path)
        evaluator = Evaluator(packing, step.meter, hooks or RunHooks(), data_path.filters_losses)
        self.parts = Parts(checkpointer or StockLayoutCheckpointer(), packing, data_path, step, evaluator)
        if is_split(self.train_dataset) and self.compute_loss_func is not None:
            raise TypeError("compute_loss_func is not called for a split of a store: give a data set of another kind")
        if class_weights is not None and not is_split(self.train_dataset):
            raise TypeError("class_weights are for a split of a store: give compute_loss_func for other data sets")
        if gives_mean_of_batch(self.model):
            self.model_accepts_loss_kwargs = False
        # The encoders that can be packed write no buffer, so DDP need not broadcast buffers in each pass.
        if self.args.ddp_broadcast_buffers is None and _writes_no_buffer(self.model):
            self.accelerator.ddp_handler.broadcast_buffers = False
        evaluated = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        first = next(filter(is_split, (self.train_dataset, *evaluated)), None)
        if first is not None:
            with packing.in_use():
                packing.attach_view(self, first)

    # Data

    def get_train_dataloader(self) -> Any:
        """Return a loader of steps for a store's split, and for the loop of `train` over packed data; else stock."""
        loader = self.parts.data_path.step_loader(self)
        return super().get_train_dataloader() if loader is None else loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return a loader of packs for a store's split, and for the loop of `evaluate` over packed data; else stock."""
        stock = partial(super().get_eval_dataloader, eval_dataset)
        loader = self.parts.data_path.evaluation_loader(self, eval_dataset, stock)
        return stock() if loader is None else loader

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """Return a loader by the rule of `get_eval_dataloader`."""
        stock = partial(super().get_test_dataloader, test_dataset)
        loader = self.parts.data_path.pack_loader(self, test_dataset, "test", stock)
        return stock() if loader is None else loader

    def get_total_train_batch_size(self, args: Any) -> int:
        """Return the examples of an optimizer step."""
        return self.parts.data_path.step_examples_in_training() or super().get_total_train_batch_size(args)

    # Training

    def train(
        self, resume_from_checkpoint: Any = None, trial: Any = None, ignore_keys_for_eval: list[str] | None = None
    ) -> TrainOutput:
        """Train as transformers does; returns once the last checkpoint is on the disk.

        Raises CheckpointError for a damaged checkpoint that was named; with True the newest sound one is taken. A state
        that another version of transformers wrote and this one cannot read is the same error.
        """
        checkpoint = self.parts.checkpointer.checkpoint_to_resume(self, resume_from_checkpoint)
        refuse_unknown_keys(checkpoint)
        with self.parts.packing.in_use(), without_noise_afterwards(self):
            output = super().train(checkpoint, trial, ignore_keys_for_eval)
        self.parts.checkpointer.finish()
        return output

    def _inner_training_loop(
        self,
        batch_size: int | None = None,
        args: Any = None,
        resume_from_checkpoint: str | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Run transformers' loop, over whole steps where they are packed."""
        with self.parts.data_path.training(self), noise_by_sequence(self, self.parts.packing):
            return super()._inner_training_loop(
                batch_size=batch_size,
                args=args,
                resume_from_checkpoint=resume_from_checkpoint,
                trial=trial,
                ignore_keys_for_eval=ignore_keys_for_eval,
            )

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        """Let transformers make the engine and optimizer, then restore the checkpoint's state into them."""
        restoration = Restoration.planned(self, resume_from_checkpoint)
        with self.parts.step.stream_of_ddp(self.args):
            prepared = super()._prepare_for_training(max_steps, train_dataloader, restoration.stock)
        if not is_split(self.train_dataset) and self.parts.data_path.training_split is not None:
            self.callback_handler.train_dataloader = super().get_train_dataloader()
        self.parts.step.begin_training(self)
        restoration.apply(self)
        self.parts.checkpointer.begin_training(self)
        return prepared

    def _run_epoch(self, *loop: Any, **named: Any) -> None:
        """Run transformers' epoch, but no step after the last: it would take one when resumed at its end."""
        if self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
            super()._run_epoch(*loop, **named)
            self.parts.step.guard.settle(self)
        else:
            self.control.should_training_stop = True

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make transformers' optimizer, with the rates of `args.layer_decay`; or AdamW on float32 masters."""
        is_new = getattr(self, "optimizer", None) is None
        self.optimizer = super().create_optimizer(model)
        if is_new and (setting(self.args, "layer_decay") < 1 or self.is_deepspeed_enabled):
            arrange_groups(self.optimizer, model or self.model, setting(self.args, "layer_decay"))
        if setting(self.args, "master_weights"):
            self.optimizer = with_masters(self.optimizer, model or self.model)
        return self.optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Return the norm before clipping; with masters the optimizer clips in its own pass."""
        masters = masters_of(self.optimizer)
        return super()._clip_grad_norm(model) if masters is None else masters.clip(self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm, and skip the step where it is not finite. Raises FtsysError after too many in a row."""
        masters = masters_of(self.optimizer)
        if grad_norm is None and masters is not None:
            grad_norm = masters.clip(math.inf)
        norm = super()._get_grad_norm(model, grad_norm)
        self.parts.step.guard.check(self, model, norm)
        self.parts.checkpointer.before_update()
        return norm

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Run forward and backward passes of this rank's local batch of a step, or of a stock batch."""
        local_batch = local_batch_of(inputs)
        if local_batch is None:
            return super().training_step(model, inputs, num_items_in_batch)
        return self.parts.step.run(self, model, local_batch)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 6 x parameters outside the embeddings x this rank's real tokens."""
        local_batch = local_batch_of(inputs)
        if local_batch is None:
            return super().floating_point_ops(inputs)
        return self.parts.step.floating_point_ops(self, local_batch)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Count the real tokens of the whole step, on every rank: without padding `all` and `non_padding` are one."""
        local_batch = local_batch_of(inputs)
        if local_batch is None:
            super()._track_num_input_tokens(inputs)
        elif self.args.include_num_input_tokens_seen != "no":
            self.state.num_input_tokens_seen += local_batch.step_tokens

    def _maybe_log_save_evaluate(self, *loop: Any, **named: Any) -> None:
        """Log, evaluate and save as transformers does, after it is known whether the last step was skipped."""
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self.parts.step.guard.settle(self)
        super()._maybe_log_save_evaluate(*loop, **named)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add skipped steps to a line of the training, and for a store throughput, balance of the ranks, and memory.

        Not collective: a callback may log on one rank alone.
        """
        figures = self.parts.step.figures(logs)
        super().log({**logs, **figures} if figures else logs, start_time)

    # Evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate as transformers does, by packs where the data can be packed."""
        self.parts.step.guard.settle(self)
        with self.parts.packing.in_use(), self.parts.data_path.evaluating():
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Predict as transformers does; rows come back in the order of the data, whatever the sampling strategy."""
        with self.parts.packing.in_use(), self.parts.data_path.evaluating():
            return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """Evaluate within training; one that a stopped attempt left to this one counts as that attempt's would have."""
        checkpoint = self.parts.evaluator.take_owed(self.args) if skip_scheduler else None
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler and checkpoint is None)
        if checkpoint is not None and self._determine_best_metric(metrics, trial):
            self.state.best_model_checkpoint = checkpoint
        return metrics

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate an `EvaluationLoader` by packs, any other loader as transformers does."""
        if isinstance(dataloader, EvaluationLoader):
            return self.parts.evaluator.run(self, dataloader, prediction_loss_only, metric_key_prefix)
        with self.parts.packing.unpadded(self, training=False):
            return super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.parts.step.guard.settle(self)
        with self.parts.data_path.as_asked(self.args):
            if not self.parts.checkpointer.save(self, trial):
                super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not weights_come_later(self.model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if not restore_rng_state(checkpoint, self.args.process_index, self.args.world_size):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        if self.parts.checkpointer.load_best(self):
            self.parts.evaluator.weights_replaced()
        else:
            super()._load_best_model()


def _writes_no_buffer(model: nn.Module) -> bool:
    """Return True for an encoder that can be packed, all of whose buffers are its own constants, such as positions.

    Another module may write its buffers, as batch statistics, and all ranks must then have those of the first.
    """
    holders = (module for module in model.modules() if next(module.buffers(recurse=False), None) is not None)
    constant = all(type(each).__module__.startswith("transformers.") for each in holders)
    return constant and why_not_packable(model) is None
