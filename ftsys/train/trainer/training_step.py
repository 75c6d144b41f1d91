"""Computes a rank's local batch of an optimizer step: its micro-batches packed, its loss scaled in one place.

A training item is a rank's whole part of an optimizer step, its local batch. So the Trainer's loop runs with
accumulation 1, and this engine alone scales losses.
"""

import contextlib
import logging
import os
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainingArguments

from ftsys.cpus.onednn import bound_kernel_caches
from ftsys.data.batching.collate import Batch, PackedBatch, to_device
from ftsys.data.batching.loader import LOCAL_BATCH, LocalBatch
from ftsys.distributed import all_gather_json
from ftsys.kernels.native.library import give_up, native, why_not_native
from ftsys.models.inputs import dropout_keys, model_inputs
from ftsys.models.proof.alterations import why_altered
from ftsys.train.perf.cuda_graphs import GpuRecorder, PassGraphs, check_recordable
from ftsys.train.perf.late_reduction import inside_ddp, on_stream, reduce_gradients
from ftsys.train.perf.malloc import keep_freed_memory
from ftsys.train.perf.throughput import Meter
from ftsys.train.trainer.arguments import setting
from ftsys.train.trainer.data_path import DataPath
from ftsys.train.trainer.loss import loss_per_example
from ftsys.train.trainer.nonfinite_steps import NonFiniteGuard, loss_to_log, nan_gradient_if_nonfinite
from ftsys.train.trainer.packing import Packing

_LOG = logging.getLogger("ftsys")


class StepEngine:
    """Forward and backward passes of a step, and its counts. Its methods take the Trainer whose step it is."""

    def __init__(self, args: TrainingArguments, packing: Packing, data_path: DataPath) -> None:
        """Use the view of `packing` and the split of `data_path`. Collective: all ranks take the same kernels."""
        self.meter = Meter()
        self.guard = NonFiniteGuard()
        self.graphs: PassGraphs | None = None
        self._stream: torch.cuda.Stream | None = None
        self._multiplied: tuple[nn.Module, int] | None = None
        self._packing, self._data_path = packing, data_path
        self._settled: nn.Module | None = None
        self._looked_for_hooks = False
        if args.device.type == "cpu":
            keep_freed_memory()
            bound_kernel_caches(os.environ)
            _agree_on_native()

    def stream_of_ddp(self, args: TrainingArguments) -> contextlib.AbstractContextManager[None]:
        """Return a context in which DDP has to be made, so that passes with its gradients can be recorded."""
        if setting(args, "cuda_graphs") and args.world_size > 1 and args.device.type == "cuda":
            self._stream = torch.cuda.Stream()
        return on_stream(self._stream)

    def begin_training(self, trainer: Trainer) -> None:
        """Forget the former training of this Trainer. Raises ConfigError where passes cannot be recorded."""
        self.guard.begin_training(trainer)
        self._looked_for_hooks = False
        self.graphs = None  # its memory and settings may be others now
        if setting(trainer.args, "cuda_graphs"):
            check_recordable(trainer)

    def run(self, trainer: Trainer, model: nn.Module, local_batch: LocalBatch) -> torch.Tensor:
        """Run the passes of this rank's local batch; returns its part of the step's mean loss, times the ranks.

        Averaged over the ranks, as gradients and the logged loss are, that is the mean over the global batch.
        """
        with on_stream(self._stream):
            self._begin_step(trainer, model, local_batch)
            total = self._all_passes(trainer, model, local_batch)
        self.meter.add(local_batch, self._own_tokens(local_batch))
        split = self._data_path.training_split
        filtered = self._data_path.filters_logged_loss or (split is not None and not split.stock_semantics)
        return loss_to_log(trainer, total) if filtered else total

    def _all_passes(self, trainer: Trainer, model: nn.Module, local_batch: LocalBatch) -> torch.Tensor:
        """Run the passes of all micro-batches, and reduce their gradients; returns the sum of the losses.

        Where passes may be recorded, they run on the model inside DDP, and the reduction follows them.
        """
        computing = model if self.graphs is None else inside_ddp(model)
        scale, device = trainer.args.world_size / local_batch.step_weight, trainer.args.device
        total, last = torch.zeros((), device=device), len(local_batch.micro_batches) - 1
        for index, batch in enumerate(local_batch.micro_batches):
            with _synchronized(trainer, model, is_last=index == last):
                total += self.forward_backward(trainer, computing, to_device(batch, device), scale)
        if computing is not model and isinstance(model, DistributedDataParallel):
            reduce_gradients(model)
        return total

    def _begin_step(self, trainer: Trainer, model: nn.Module, local_batch: LocalBatch) -> None:
        model.train()
        if callable(getattr(trainer.optimizer, "train", None)):
            trainer.optimizer.train()
        self.meter.begin_step()
        self._warn_of_hooks(trainer)
        self._settle_buckets(trainer, model, local_batch.micro_batches[0])
        _seed_dropout(trainer)
        self.guard.begin_step()
        if setting(trainer.args, "cuda_graphs"):
            if self.graphs is None:
                inner = inside_ddp(model)
                self.graphs = PassGraphs(inner, partial(self.passes, trainer, inner), GpuRecorder(self._stream))
            self.graphs.begin_step()

    def forward_backward(self, trainer: Trainer, model: nn.Module, batch: Batch, scale: float) -> torch.Tensor:
        """Run the passes of one micro-batch, from a CUDA graph where there is one; returns its part of the loss."""
        kernel = "padded" if self._packing.view is None else self._packing.view.kernel
        keys_T = dropout_keys(batch, trainer.args.seed, trainer.state.global_step, kernel)
        if self.graphs is not None and isinstance(batch, PackedBatch) and batch.is_static and keys_T is not None:
            loss, losses_S = self.graphs(batch, keys_T, torch.full((), scale, device=trainer.args.device))
        else:
            loss, losses_S = self.passes(trainer, model, batch, keys_T, scale)
        self.guard.note(losses_S, batch.example_ids_S)
        return loss

    def passes(
        self, trainer: Trainer, model: nn.Module, batch: Batch, keys_T: torch.Tensor | None, scale: float | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute one micro-batch; returns its part of the step's loss (), and the loss of each sequence (S,)."""
        with trainer.compute_loss_context_manager():
            logits_SC = model(**model_inputs(batch, self._packing.view, keys_T)).logits
            smoothing = trainer.args.label_smoothing_factor
            weights_C = self._data_path.class_weights.on(logits_SC.device)
            losses_S = loss_per_example(logits_SC, batch.labels_S, batch.example_ids_S, smoothing, weights_C)
            loss = nan_gradient_if_nonfinite(losses_S.sum() * scale)
        by_engine = {"scale_wrt_gas": False} if _under_deepspeed(trainer) else {}
        trainer.accelerator.backward(loss, **by_engine)
        return loss.detach(), losses_S.detach()

    def _warn_of_hooks(self, trainer: Trainer) -> None:
        """Warn of hooks and methods that were put on the model after the decision to pack, as in on_train_begin."""
        if self._looked_for_hooks:
            return
        self._looked_for_hooks = True
        altered = why_altered(trainer.model)
        if altered is not None and self._packing.view is not None:
            _LOG.warning("ftsys: %s: put it there before train() is called, or give packing=False", altered)

    def _settle_buckets(self, trainer: Trainer, model: nn.Module, batch: Batch) -> None:
        """Make DDP lay out its gradient buckets before the first step, by a pass whose gradients are zero.

        DDP lays them out again after its first backward pass. With three ranks or more, a gradient's place in a bucket
        decides the order in which the ranks' parts are added, so a resumed run would differ from an uninterrupted one.
        """
        if model is self._settled or not isinstance(model, DistributedDataParallel):
            return
        self._settled = model
        with trainer.compute_loss_context_manager():
            inputs = model_inputs(to_device(batch, trainer.args.device), self._packing.view)
            logits_SC = model(**inputs).logits
        trainer.accelerator.backward((logits_SC * 0).sum())
        model.zero_grad(set_to_none=True)

    # Counts

    def _own_tokens(self, local_batch: LocalBatch) -> int:
        assert self._data_path.training_split is not None  # the local batch was made of it
        return int(self._data_path.training_split.lengths[local_batch.example_ids].sum())

    def floating_point_ops(self, trainer: Trainer, local_batch: LocalBatch) -> int:
        """Return 6 x parameters outside the embeddings x this rank's real tokens."""
        model = trainer.model
        if self._multiplied is None or self._multiplied[0] is not model:
            self._multiplied = (model, parameters_outside_embeddings(model))
        return 6 * self._multiplied[1] * self._own_tokens(local_batch)

    def figures(self, logs: dict[str, float]) -> dict[str, float]:
        """Return figures to add to a line of the training log: skipped steps; for a store also speed and memory."""
        if "loss" not in logs:
            return {}
        split = self._data_path.training_split
        speed = self.meter.drain() if split is not None and not split.stock_semantics else {}
        return speed | self.guard.drain()


def local_batch_of(inputs: dict[str, Any]) -> LocalBatch | None:
    """Return the local batch that a training item holds; None for a stock batch."""
    return inputs[LOCAL_BATCH] if LOCAL_BATCH in inputs else None  # noqa: SIM401  # a user's batch may have no `get`


def parameters_outside_embeddings(model: nn.Module) -> int:
    """Count the parameters that take part in matrix products with each token: all but those of `nn.Embedding`."""
    embedded = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if id(p) not in embedded)


def _under_deepspeed(trainer: Trainer) -> bool:
    return trainer.accelerator.distributed_type == DistributedType.DEEPSPEED


def _synchronized(trainer: Trainer, model: nn.Module, is_last: bool) -> contextlib.AbstractContextManager[None]:
    """Return a context in which gradients are reduced over ranks only with the last micro-batch of a step.

    DeepSpeed reads a flag of accelerate, DDP needs its own context.
    """
    trainer.accelerator.gradient_state._set_sync_gradients(is_last)
    if is_last or _under_deepspeed(trainer):
        return contextlib.nullcontext()
    return trainer.accelerator.no_sync(model)


def _seed_dropout(trainer: Trainer) -> None:
    """Seed torch's generator by (seed, step, rank), for dropout that is not keyed by the example.

    No state of a generator then belongs into a checkpoint.
    """
    args = trainer.args
    key = np.random.SeedSequence([args.seed, trainer.state.global_step, args.process_index])
    torch.manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))


def _agree_on_native() -> None:
    """Turn off the kernels in C++ on all ranks where one rank has none: replicas of a weight must round alike."""
    missing = [(rank, reason) for rank, reason in enumerate(all_gather_json(why_not_native())) if reason is not None]
    if missing and native() is not None:
        give_up(f"rank {missing[0][0]} has none: {missing[0][1]}")
