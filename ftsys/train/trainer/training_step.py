"""A training step of our own: a rank's whole share of an optimizer step, packed, its loss scaled in one place.

A training item is a rank's whole share of an optimizer step, so the Trainer's loop runs with accumulation 1 and this
class alone decides how the share is cut and how losses are scaled.
"""

import contextlib
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ftsys.data.batching.collate import Batch, PackedBatch, to_device
from ftsys.data.batching.loader import SHARE, Share, Split
from ftsys.data.store.reader import StoreSplit
from ftsys.distributed import from_all
from ftsys.kernels.compiled_norm import why_not_compiled
from ftsys.kernels.native.library import give_up, native, why_not_native
from ftsys.kernels.select import choose_kernel
from ftsys.models.inputs import check_pad_token, dropout_keys, model_inputs, name_pad_token
from ftsys.models.packed import PackedView, head_size, why_not_packable
from ftsys.train.perf.cuda_graphs import GpuRecorder, PassGraphs, check_recordable
from ftsys.train.perf.malloc import keep_freed_memory
from ftsys.train.perf.throughput import Meter
from ftsys.train.trainer.arguments import setting
from ftsys.train.trainer.loss import loss_per_example
from ftsys.train.trainer.nonfinite_steps import judged
from ftsys.train.trainer.stock_checkpoints import StockFilesTrainer


class StepTrainer(StockFilesTrainer):
    """transformers' Trainer that takes `Share`s as training items beside the stock batches.

    `training_split` is what shares are made of, None for data that goes the stock way.
    """

    view: PackedView | None = None
    padded_because: str | None = None
    """Why the data that was last asked about went the stock way, or the store's model is fed padded batches."""
    eager_because: str | None = None
    """Why a rank cannot compile what `compile_regions` asks for, so that none does."""
    graphs: PassGraphs | None = None
    training_split: Split | None = None
    _viewed: nn.Module | None = None
    _settled: nn.Module | None = None

    def __init__(self, *stock: Any, **named: Any) -> None:
        """As transformers'."""
        super().__init__(*stock, **named)
        self.meter = Meter()
        if self.args.device.type == "cpu":
            keep_freed_memory()
            _agree_on_native()

    def attach_view(self, model: nn.Module, pad_id: int) -> None:
        """Pack what can be packed; `padded_because` holds the reason why not."""
        name_pad_token(model, pad_id)
        self.padded_because = why_not_packable(model) if setting(self.args, "packing") else "packing=False"
        self.view, self._viewed = None, model
        if self.padded_because is None:
            device = self.args.device.type
            if setting(self.args, "compile_regions"):
                self.eager_because = next(filter(None, from_all(why_not_compiled(device))), None)
            compiled = setting(self.args, "compile_regions") and self.eager_because is None
            kernel = choose_kernel(setting(self.args, "kernels"), device, head_size(model.config))
            self.view = PackedView(model, kernel, compiled)
        else:
            check_pad_token(model, pad_id)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of this rank's share. Returns the share's part of the step's mean loss x ranks.

        Averaged over the ranks, as gradients and the logged loss are, that is the mean over the global batch.
        """
        if SHARE not in inputs:
            return super().training_step(model, inputs, num_items_in_batch)
        share: Share = inputs[SHARE]
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        self.meter.begin_step()
        self._settle_buckets(model, share.micro_batches[0])
        self._seed_dropout()
        self.begin_losses()
        self._begin_graphs(model)
        scale = self.args.world_size / share.step_examples
        total = torch.zeros((), device=self.args.device)
        for index, batch in enumerate(share.micro_batches):
            with self._reduced_at_the_end(model, is_last=index == len(share.micro_batches) - 1):
                total += self._forward_backward(model, to_device(batch, self.args.device), scale)
        self.meter.add(share, self._own_tokens(share))
        filtered = isinstance(self.training_split, StoreSplit) or self.args.logging_nan_inf_filter
        return self.counted_loss(total) if filtered else total

    def _forward_backward(self, model: nn.Module, batch: Batch, scale: float) -> torch.Tensor:
        keys_T = dropout_keys(batch, self.args.seed, self.state.global_step)
        if self.graphs is not None and isinstance(batch, PackedBatch) and batch.is_static and keys_T is not None:
            loss, losses_S = self.graphs(batch, keys_T, torch.tensor(scale, device=self.args.device))
        else:
            loss, losses_S = self._passes(model, batch, keys_T, scale)
        self.note_losses(losses_S, batch.example_ids_S)
        return loss

    def _passes(
        self, model: nn.Module, batch: Batch, keys_T: torch.Tensor | None, scale: float | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward of one micro-batch: its part of the step's loss, and the loss of each sequence."""
        with self.compute_loss_context_manager():
            logits_SC = model(**model_inputs(batch, self.view, keys_T)).logits
            smoothing = self.args.label_smoothing_factor
            losses_S = loss_per_example(logits_SC, batch.labels_S, batch.example_ids_S, smoothing)
            loss = judged(losses_S.sum() * scale)
        by_engine = {"scale_wrt_gas": False} if self._under_deepspeed else {}
        self.accelerator.backward(loss, **by_engine)
        return loss.detach(), losses_S.detach()

    def _settle_buckets(self, model: nn.Module, batch: Batch) -> None:
        """Have DDP lay out its buckets before a life's first step, by a pass whose gradients are zero.

        It lays them anew after its first backward pass. From three ranks on, where a gradient lies in a bucket decides
        in which order the ranks' parts are added, so a resumed run would differ from an uninterrupted one.
        """
        if model is self._settled or not isinstance(model, DistributedDataParallel):
            return
        self._settled = model
        with self.compute_loss_context_manager():
            logits_SC = model(**model_inputs(to_device(batch, self.args.device), self.view)).logits
        self.accelerator.backward((logits_SC * 0).sum())
        model.zero_grad(set_to_none=True)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        self.graphs = None  # of the former training of this Trainer: its memory and settings may be others now
        if setting(self.args, "cuda_graphs"):
            check_recordable(self)
        return prepared

    def _begin_graphs(self, model: nn.Module) -> None:
        if not setting(self.args, "cuda_graphs"):
            return
        if self.graphs is None:
            self.graphs = PassGraphs(model, partial(self._passes, model), GpuRecorder())
        self.graphs.begin_step()

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

    # Counts

    def _own_tokens(self, share: Share) -> int:
        assert self.training_split is not None  # the share was made of it
        return int(self.training_split.lengths[share.example_ids].sum())

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """6 x parameters outside the embeddings x this rank's real tokens."""
        if SHARE not in inputs:
            return super().floating_point_ops(inputs)
        return 6 * parameters_outside_embeddings(self.model) * self._own_tokens(inputs[SHARE])

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Tokens of the whole step, on every rank: there is no padding, so `all` and `non_padding` are one."""
        if SHARE not in inputs:
            super()._track_num_input_tokens(inputs)
        elif self.args.include_num_input_tokens_seen != "no":
            self.state.num_input_tokens_seen += inputs[SHARE].step_tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers', with throughput, balance and memory on training lines of a store."""
        if "loss" in logs and isinstance(self.train_dataset, StoreSplit):
            logs = {**logs, **self.meter.drain()}
        super().log(logs, start_time)


def parameters_outside_embeddings(model: nn.Module) -> int:
    """Parameters that take part in matrix products with each token: all but those of `nn.Embedding`."""
    embedded = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if id(p) not in embedded)


def _agree_on_native() -> None:
    """Have all ranks go without the kernels in C++ where one of them must: replicas of a weight round alike."""
    lacking = [(rank, reason) for rank, reason in enumerate(from_all(why_not_native())) if reason is not None]
    if lacking and native() is not None:
        give_up(f"rank {lacking[0][0]} has none: {lacking[0][1]}")
