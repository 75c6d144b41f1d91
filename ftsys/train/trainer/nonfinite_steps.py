"""Skips steps whose loss or gradient is not finite, and ends the run after too many of them in a row.

Every engine checks the gradient's norm over all ranks, so all ranks skip the same steps and stop at the same one. A
loss that is not finite makes its own gradient NaN, so the norm alone decides and needs no collective of its own.

The device skips the update by itself where the optimizer can (`optimizer/device_skips.py`). The host then reads the
norm one step later, so that it need not wait; what it did meanwhile, an advance of the learning rate, it takes back.
Before anything reads the state of the training (a log line, an evaluation, a checkpoint, the end of an epoch) the norm
is read at once.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer

from ftsys.distributed import all_gather_json
from ftsys.errors import FtsysError
from ftsys.train.optimizer.device_skips import ScheduleState, forget_skip, left_to_device
from ftsys.train.perf.host_copies import HostCopy
from ftsys.train.trainer.arguments import setting

_LOG = logging.getLogger(__name__)
NAMED_EXAMPLES = 20
"""A message lists at most this many example ids."""


Losses = list[tuple[Tensor, Tensor]]
"""Of each micro-batch of a step: losses (S,) and example ids (S,)."""


@dataclass(frozen=True)
class _Unread:
    """A step that the device has skipped or not, which the host does not know yet."""

    step: int
    norm: HostCopy
    losses: Losses
    before: ScheduleState


class NonFiniteGuard:
    """Checks each step by its gradient's norm, counts skipped steps, and names the examples of a bad one."""

    def __init__(self) -> None:
        self.skipped_in_a_row = 0
        self._skipped_since_log = 0
        self._losses: Losses | None = None
        self._unread: _Unread | None = None

    def begin_training(self, trainer: Trainer) -> None:
        """Forget the former training of this Trainer, and have DeepSpeed skip such steps too."""
        self._losses, self._unread, self.skipped_in_a_row = None, None, 0
        if trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:
            skip_in_plain_optimizer(trainer.model_wrapped)
            trainer.optimizer.__has_overflow__ = True  # accelerate looked for it when it wrapped the optimizer

    def begin_step(self) -> None:
        """Forget the losses of the step before."""
        self._losses = []

    def note(self, losses_S: Tensor, example_ids_S: Tensor) -> None:
        """Keep the losses (S,) of a micro-batch, without gradients, and their example ids (S,) for a message."""
        assert self._losses is not None
        self._losses.append((losses_S, example_ids_S))

    def check(self, trainer: Trainer, model: nn.Module, norm: Any) -> None:
        """Skip the step where `norm`, the gradient's norm over all ranks, is not finite.

        A step of the stock data path is left to the stock Trainer. Raises FtsysError on every rank after too many
        skipped steps in a row, in this step or with the next one.
        """
        if self._losses is None:
            return
        self.settle(trainer)
        step = trainer.state.global_step + 1
        if trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:
            self._count(trainer, step, self._losses, skipped=not model.was_step_applied())
        elif left_to_device(trainer, norm):
            before = ScheduleState(trainer.lr_scheduler, trainer.optimizer)
            self._unread = _Unread(step, HostCopy(norm), self._losses, before)
        else:
            finite = math.isfinite(float(norm))
            trainer.optimizer._is_overflow = not finite  # so that transformers does not advance the schedule
            if not finite:
                model.zero_grad(set_to_none=True)
                trainer.optimizer.zero_grad(set_to_none=True)
            self._count(trainer, step, self._losses, skipped=not finite)

    def settle(self, trainer: Trainer) -> None:
        """Learn whether the device has skipped the last step; then the schedule does not advance. Collective.

        A step whose update is still to come, as in `on_pre_optimizer_step`, is left alone. Raises FtsysError as
        `check`.
        """
        unread = self._unread
        if unread is None or unread.step > trainer.state.global_step:
            return
        self._unread = None
        forget_skip(trainer.optimizer)
        skipped = not math.isfinite(unread.norm.read())
        if skipped:
            unread.before.restore()
        self._count(trainer, unread.step, unread.losses, skipped)

    def _count(self, trainer: Trainer, step: int, losses: Losses, skipped: bool) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if not skipped:
            return
        self._skipped_since_log += 1
        limit = setting(trainer.args, "max_nonfinite_steps")
        found = f"step {step}: the loss or its gradient is not finite; {_described(*_ids_of_all_ranks(losses))}"
        if self.skipped_in_a_row > limit:
            raise FtsysError(
                f"{found}. That makes {self.skipped_in_a_row} steps in a row (train.max_nonfinite_steps = {limit}), "
                "none of which changed a weight. Look at these rows; try a lower learning rate, or fp32"
            )
        if trainer.args.process_index == 0:
            _LOG.warning("%s. The step is skipped (%d in a row)", found, self.skipped_in_a_row)

    def drain(self) -> dict[str, float]:
        """Return the number of steps skipped since the last call as {"skipped_steps": n}; empty where it is zero."""
        skipped, self._skipped_since_log = self._skipped_since_log, 0
        return {"skipped_steps": skipped} if skipped else {}


def _ids_of_all_ranks(losses: Losses) -> tuple[list[int], list[int]]:
    """Return the step's ids, sorted: those with a loss that is not finite, and all. Collective."""
    gathered = all_gather_json(_ids(losses))
    bad, every = (sorted({index for ids in gathered for index in ids[kind]}) for kind in (0, 1))
    return bad, every


def _ids(losses: Losses) -> list[list[int]]:
    bad, every = [], []
    for losses_S, ids_S in losses:
        real = ids_S >= 0
        every += ids_S[real].tolist()
        bad += ids_S[real & ~torch.isfinite(losses_S.to(ids_S.device))].tolist()
    return [bad, every]


def nan_gradient_if_nonfinite(loss: Tensor) -> Tensor:
    """Return `loss`, whose gradient is NaN where its value is not finite."""
    return loss * (loss.detach() * 0 + 1)  # the factor is 1 or NaN, and the device need not be waited for


def loss_to_log(trainer: Trainer, step_loss: Tensor) -> Tensor:
    """Return the step's loss, or the mean of the steps before where it is not finite.

    This is transformers' rule for the logged mean, without its wait for the device.
    """
    mean = trainer._tr_loss / (1 + trainer.state.global_step - trainer._globalstep_last_logged)
    return torch.where(torch.isfinite(step_loss), step_loss, mean)


def skip_in_plain_optimizer(engine: Any) -> None:
    """Make a DeepSpeed engine whose optimizer is torch's own (ZeRO 0, fp32) skip steps as its other engines do.

    DeepSpeed 0.19 checks the norm in its own optimizer classes; torch's optimizer steps whatever the gradient is.
    """
    optimizer = engine.optimizer
    scaler: Any = getattr(optimizer, "loss_scaler", None)
    if hasattr(scaler, "raise_error_at_min_scale"):
        scaler.raise_error_at_min_scale = False  # max_nonfinite_steps decides when to end the run
    if isinstance(optimizer, Optimizer):
        optimizer.overflow = False  # the attribute that the engine reads
        optimizer.register_step_pre_hook(_drop_nonfinite_gradients)


def _drop_nonfinite_gradients(optimizer: Any, args: Any, kwargs: Any) -> None:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    optimizer.overflow = not math.isfinite(float(norm))
    if optimizer.overflow:
        optimizer.zero_grad(set_to_none=True)


def _described(bad: list[int], every: list[int]) -> str:
    if bad:
        return f"its loss is not finite for example ids {_listed(bad)}"
    return f"every example's loss is finite, so look at all its example ids: {_listed(every)}"


def _listed(ids: list[int]) -> str:
    more = f" and {len(ids) - NAMED_EXAMPLES} more" if len(ids) > NAMED_EXAMPLES else ""
    return ", ".join(str(index) for index in ids[:NAMED_EXAMPLES]) + more
