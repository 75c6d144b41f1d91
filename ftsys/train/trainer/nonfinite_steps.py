"""A step whose loss or gradient is not finite changes no weight; too many of them in a row end the run.

Every engine judges the gradient's norm over all ranks, so all ranks skip the same steps and stop at the same one. A
loss that is not finite spoils its own gradient here, so that the norm alone decides and no rank is asked once more.
"""

import logging
import math
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from ftsys.errors import FtsysError
from ftsys.train.trainer.arguments import setting
from ftsys.train.trainer.master_weights import MasterWeightsTrainer

_LOG = logging.getLogger(__name__)
NAMED_EXAMPLES = 20
"""No more example ids than this are written in one line."""


class FiniteStepsTrainer(MasterWeightsTrainer):
    """Skips what is not finite. A subclass calls `begin_losses`, `note_losses` and `judged` in its training step."""

    skipped_in_a_row = 0
    skipped_since_log = 0
    _step_losses: list[tuple[Tensor, Tensor]] | None = None

    def begin_losses(self) -> None:
        """Forget the former step's losses."""
        self._step_losses = []

    def note_losses(self, losses_S: Tensor, example_ids_S: Tensor) -> None:
        """Keep a micro-batch's losses (S,), without gradients, and their ids for `_name`."""
        assert self._step_losses is not None
        self._step_losses.append((losses_S, example_ids_S))

    def counted_loss(self, step_loss: Tensor) -> Tensor:
        """What the logged mean takes for a step: transformers' rule for a loss that is not finite, without its sync."""
        so_far = self._tr_loss / (1 + self.state.global_step - self._globalstep_last_logged)
        return torch.where(torch.isfinite(step_loss), step_loss, so_far)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        self._step_losses, self.skipped_in_a_row = None, 0  # the former training of this Trainer, packed or not
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            skip_in_plain_optimizer(self.model_wrapped)
            self.optimizer.__has_overflow__ = True  # accelerate looked for it when it wrapped the optimizer
        return prepared

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm, once the step is judged by it. Raises FtsysError on every rank after too many in a row."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self._step_losses is None:  # data of the stock path is trained on as the stock Trainer does
            return norm
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            self._count(skipped=not model.was_step_applied())
            return norm
        finite = math.isfinite(float(norm))
        if self.accelerator.scaler is None:  # a scaler of fp16 skips the step itself, and lowers its scale
            self.optimizer._is_overflow = not finite  # so that transformers leaves the schedule where it is
            if not finite:
                model.zero_grad(set_to_none=True)
                self.optimizer.zero_grad(set_to_none=True)
        self._count(skipped=not finite)
        return norm

    def _count(self, skipped: bool) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if not skipped:
            return
        self.skipped_since_log += 1
        step, limit = self.state.global_step + 1, setting(self.args, "max_nonfinite_steps")
        named = _gathered(self._name())
        found = f"step {step}: the loss or its gradient is not finite; {_described(named)}"
        if self.skipped_in_a_row > limit:
            raise FtsysError(
                f"{found}. That makes {self.skipped_in_a_row} steps in a row (train.max_nonfinite_steps = {limit}), "
                "none of which changed a weight. Look at these rows; try a lower learning rate, or fp32"
            )
        if self.args.process_index == 0:
            _LOG.warning("%s. The step is skipped (%d in a row)", found, self.skipped_in_a_row)

    def _name(self) -> tuple[list[int], list[int]]:
        """This rank's ids of the step: with a loss that is not finite, and all."""
        spoiled, every = [], []
        for losses_S, ids_S in self._step_losses or []:
            real = ids_S >= 0
            every += ids_S[real].tolist()
            spoiled += ids_S[real & ~torch.isfinite(losses_S.to(ids_S.device))].tolist()
        return spoiled, every

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers', with the number of skipped steps where there were any."""
        if "loss" in logs and self.skipped_since_log:
            logs = {**logs, "skipped_steps": self.skipped_since_log}
            self.skipped_since_log = 0
        super().log(logs, start_time)


def judged(loss: Tensor) -> Tensor:
    """`loss`, with a gradient of NaN where its value is not finite."""
    return loss * (loss.detach() * 0 + 1)  # 1 for a finite loss, NaN for any other, and no question to the device


def skip_in_plain_optimizer(engine: Any) -> None:
    """Have a DeepSpeed engine whose optimizer is torch's own (ZeRO 0, fp32) skip as its others do, once and for all.

    DeepSpeed 0.19 judges the norm in each optimizer class of its own; a plain one steps whatever the gradient is.
    """
    optimizer = engine.optimizer
    scaler: Any = getattr(optimizer, "loss_scaler", None)
    if hasattr(scaler, "raise_error_at_min_scale"):
        scaler.raise_error_at_min_scale = False  # max_nonfinite_steps decides when it is enough
    if isinstance(optimizer, Optimizer):
        optimizer.overflow = False  # the name under which the engine asks
        optimizer.register_step_pre_hook(_drop_spoiled_gradients)


def _drop_spoiled_gradients(optimizer: Any, args: Any, kwargs: Any) -> None:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    optimizer.overflow = not math.isfinite(float(norm))
    if optimizer.overflow:
        optimizer.zero_grad(set_to_none=True)


def _gathered(named: tuple[list[int], list[int]]) -> tuple[list[int], list[int]]:
    """All ranks' ids, sorted. Collective."""
    found = [named]
    if distributed.is_available() and distributed.is_initialized():
        found = [named] * distributed.get_world_size()
        distributed.all_gather_object(found, named)
    spoiled, every = (sorted({index for one in found for index in one[kind]}) for kind in (0, 1))
    return spoiled, every


def _described(named: tuple[list[int], list[int]]) -> str:
    spoiled, every = named
    if spoiled:
        return f"its loss is not finite for example ids {_listed(spoiled)}"
    return f"every example's loss is finite, so look at all its example ids: {_listed(every)}"


def _listed(ids: list[int]) -> str:
    more = f" and {len(ids) - NAMED_EXAMPLES} more" if len(ids) > NAMED_EXAMPLES else ""
    return ", ".join(str(index) for index in ids[:NAMED_EXAMPLES]) + more
