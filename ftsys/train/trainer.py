"""The Hugging Face Trainer with its data path, loss scale and evaluation replaced; everything else is inherited.

A training item is a rank's whole share of an optimizer step, so the Trainer's loop runs with accumulation 1 and this
class alone decides how the share is cut and how losses are scaled. Data that is no store goes the stock way.
"""

import contextlib
import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.utils import DistributedType
from torch import nn
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction

from ftsys.data.collate import Batch, to_device
from ftsys.data.loader import SHARE, BatchSettings, EvaluationLoader, Share, StepLoader
from ftsys.data.store import StoreSplit
from ftsys.kernels.attention import choose_kernel
from ftsys.models.feed import check_pad_token, model_inputs, name_pad_token
from ftsys.models.packed import PackedView, why_not_packable
from ftsys.train.agree import decided_by_rank_0
from ftsys.train.arguments import TrainingArguments
from ftsys.train.evaluation import Predictions, predict_all
from ftsys.train.loss import loss_per_example
from ftsys.train.meter import Meter
from ftsys.train.saving import CheckpointTrainer


class Trainer(CheckpointTrainer):
    """Constructor and methods are transformers' own; `train_dataset` and `eval_dataset` may be splits of a store."""

    def __init__(
        self,
        model: Any = None,
        args: transformers.TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *stock: Any,
        **named: Any,
    ) -> None:
        """`stock` and `named` are the other arguments of `transformers.Trainer`, in its order or by name.

        Raises TypeError for `compute_loss_func` together with a store: its loss is formed here, example by example.
        """
        arguments = _with_whole_steps(args) if isinstance(train_dataset, StoreSplit) else args
        super().__init__(model, arguments, data_collator, train_dataset, eval_dataset, *stock, **named)
        if isinstance(train_dataset, StoreSplit) and self.compute_loss_func is not None:
            raise TypeError("compute_loss_func is not called for a split of a store: give a data set of another kind")
        # transformers reads `**kwargs` of an encoder's forward as "scales its own loss" and multiplies loss and
        # gradient by ranks x accumulation (its issue 47688). Encoders with a classification head do not.
        if type(self.model).__name__.endswith("ForSequenceClassification"):
            self.model_accepts_loss_kwargs = False
        self.view: PackedView | None = None
        self.padded_because: str | None = "no split of a store was given"
        self.meter = Meter()
        self.evaluation_seconds = 0.0
        self.predictions: dict[str, Predictions] = {}
        self.predicted_at: dict[str, tuple[int, int]] = {}
        self.on_evaluation_progress: Callable[[str, int, int], None] = lambda name, done, total: None
        self.stop_wanted: Callable[[], bool] = lambda: False
        sets = [*eval_dataset.values()] if isinstance(eval_dataset, dict) else [eval_dataset]
        stores = [data for data in (train_dataset, *sets) if isinstance(data, StoreSplit)]
        self._pad_id = stores[0].tokenizer.pad_id if stores else None
        if self._pad_id is not None:
            self._attach_view(self.model, self._pad_id)

    def _attach_view(self, model: nn.Module, pad_id: int) -> None:
        """Pack what can be packed; `padded_because` holds the reason why not."""
        name_pad_token(model, pad_id)
        self.padded_because = why_not_packable(model) if _setting(self.args, "packing") else "packing=False"
        if self.padded_because is None:
            self.view = PackedView(model, choose_kernel(_setting(self.args, "kernels"), self.args.device.type))
        else:
            check_pad_token(model, pad_id)

    def call_model_init(self, trial: Any = None) -> Any:
        """A new model needs a view of its own. The first one is made before this class knows its data."""
        model = super().call_model_init(trial)
        pad_id = getattr(self, "_pad_id", None)
        if pad_id is not None:
            self._attach_view(model, pad_id)
        return model

    # Data

    def get_train_dataloader(self) -> Any:
        """A loader of steps for a split of a store, the stock one for anything else."""
        if not isinstance(self.train_dataset, StoreSplit):
            return super().get_train_dataloader()
        return StepLoader(self.train_dataset, self._batch_settings())

    def _batch_settings(self) -> BatchSettings:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return BatchSettings(
            global_size=self.args.examples_per_step,
            global_tokens=self.args.global_batch_tokens,
            order=self.args.batch_order,
            micro_tokens=self.args.micro_tokens,
            seed=seed,
            rank=self.args.process_index,
            ranks=self.args.world_size,
            packed=self.view is not None,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """A loader of evaluation packs for a split of a store, the stock one for anything else."""
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(data, str) and isinstance(self.eval_dataset, dict):
            data = self.eval_dataset[data]
        return self._pack_loader(data) if isinstance(data, StoreSplit) else super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As `get_eval_dataloader`."""
        if isinstance(test_dataset, StoreSplit):
            return self._pack_loader(test_dataset)
        return super().get_test_dataloader(test_dataset)

    def _pack_loader(self, split: StoreSplit) -> EvaluationLoader:
        ranks, rank = self.args.world_size, self.args.process_index
        return EvaluationLoader(split, _setting(self.args, "micro_tokens"), rank, ranks, packed=self.view is not None)

    # A step

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of this rank's share. Returns the share's part of the step's mean loss x ranks.

        Averaged over the ranks, as gradients and the logged loss are, that is the mean over the global batch.
        """
        if SHARE not in inputs:
            return super().training_step(model, inputs, num_items_in_batch)
        share: Share = inputs[SHARE]
        model.train()
        self.meter.begin_step()
        self._seed_dropout()
        self.begin_losses()
        scale = self.args.world_size / share.step_examples
        total = torch.zeros((), device=self.args.device)
        for index, batch in enumerate(share.micro_batches):
            with self._reduced_at_the_end(model, is_last=index == len(share.micro_batches) - 1):
                total += self._forward_backward(model, to_device(batch, self.args.device), scale)
        self.meter.add(share, int(self.train_dataset.lengths[share.example_ids].sum()))
        return self.counted_loss(total)

    def _forward_backward(self, model: nn.Module, batch: Batch, scale: float) -> torch.Tensor:
        with self.compute_loss_context_manager():
            logits_SC = model(**model_inputs(batch, self.view, (self.args.seed, self.state.global_step))).logits
            smoothing = self.args.label_smoothing_factor
            losses_S = loss_per_example(logits_SC, batch.labels_S, batch.example_ids_S, smoothing)
            loss = self.judged_loss(losses_S.sum() * scale, losses_S, batch.example_ids_S)
        by_engine = {"scale_wrt_gas": False} if self._under_deepspeed else {}
        self.accelerator.backward(loss, **by_engine)
        return loss.detach()

    @property
    def _under_deepspeed(self) -> bool:
        return self.accelerator.distributed_type == DistributedType.DEEPSPEED

    def _reduced_at_the_end(self, model: nn.Module, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are summed over ranks once a step: DeepSpeed is told by a flag, DDP by its context."""
        self.accelerator.gradient_state._set_sync_gradients(is_last)
        if is_last or self._under_deepspeed:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(model)

    def _seed_dropout(self) -> None:
        """What is not keyed by the example depends on (seed, step, rank), so that no generator is ever saved."""
        key = np.random.SeedSequence([self.args.seed, self.state.global_step, self.args.process_index])
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """6 x parameters outside the embeddings x this rank's real tokens."""
        if SHARE not in inputs:
            return super().floating_point_ops(inputs)
        tokens = int(self.train_dataset.lengths[inputs[SHARE].example_ids].sum())
        return 6 * parameters_outside_embeddings(self.model) * tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers', with throughput, balance and memory on training lines."""
        if "loss" in logs and isinstance(self.train_dataset, StoreSplit):
            logs = {**logs, **self.meter.drain()}
        super().log(logs, start_time)

    # Evaluation

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
        start, split, model = time.perf_counter(), dataloader.dataset, self._evaluation_model()
        model.eval()

        def forward(batch: Batch) -> torch.Tensor:
            with self.compute_loss_context_manager():
                return model(**model_inputs(batch, self.view)).logits

        def progress(done: int) -> None:
            self.on_evaluation_progress(split.name, done, len(split))
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)

        found = predict_all(dataloader, forward, self.args.device, progress, self.stop_wanted)
        self.predictions[split.name] = found
        self.predicted_at[split.name] = (self.state.global_step, self.weights_version)
        metrics = decided_by_rank_0(lambda: self._metrics(found, split))
        self.evaluation_seconds += time.perf_counter() - start
        self.meter.pause(time.perf_counter() - start)
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(found.logits, split.labels if split.labelled else None, named, len(split))

    def _metrics(self, found: Predictions, split: StoreSplit) -> dict[str, float]:
        if not split.labelled:
            return {}
        metrics: dict[str, float] = {}
        if self.compute_metrics is not None:
            metrics.update(self.compute_metrics(EvalPrediction(predictions=found.logits, label_ids=split.labels)))
        return metrics | {"loss": float(np.mean(found.losses, dtype=np.float64))}

    def _evaluation_model(self) -> nn.Module:
        """The engine under DeepSpeed, whose partitions it gathers; else the bare model: nothing is reduced here."""
        if self.deepspeed is not None:
            return self.deepspeed
        if not self.accelerator._models:
            self._move_model_to_device(self.model, self.args.device)
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        return self.model


def parameters_outside_embeddings(model: nn.Module) -> int:
    """Parameters that take part in matrix products with each token: all but those of `nn.Embedding`."""
    embedded = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if id(p) not in embedded)


def _setting(arguments: transformers.TrainingArguments, name: str) -> Any:
    """One of our own settings, its default where the arguments are transformers' own class."""
    return getattr(arguments, name, getattr(TrainingArguments, name))


def _with_whole_steps(arguments: transformers.TrainingArguments | None) -> transformers.TrainingArguments:
    """The same arguments with accumulation folded into the global batch, which our loader hands out whole."""
    if arguments is None:
        arguments = TrainingArguments(output_dir="tmp_trainer")
    if not isinstance(arguments, TrainingArguments):
        raise TypeError("data from a store needs ftsys.TrainingArguments, which say how steps are made from it")
    whole = copy.copy(arguments)
    whole.global_batch_size, whole.gradient_accumulation_steps = arguments.examples_per_step, 1
    return whole
