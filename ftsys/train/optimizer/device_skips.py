"""Leaves it to the device to skip an update, and takes back what the host did before it knew."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import Trainer

from ftsys.train.optimizer.master_adamw import masters_of

_FOUND_INF = "found_inf"
"""The attribute that torch's fused optimizers read: where this tensor is 1, a step changes nothing."""


def left_to_device(trainer: Trainer, norm: Any) -> bool:
    """Return True if the device skips the next update by itself where `norm` is not finite.

    `MasterAdamW` does so, fp16's scaler as well, and torch's fused optimizers after this call. For any other optimizer
    the host has to read the norm.
    """
    if type(norm) is not Tensor:  # a number, or a sharded tensor
        return False
    if trainer.accelerator.scaler is not None or masters_of(trainer.optimizer) is not None:
        return True
    optimizer = _own(trainer.optimizer)
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    optimizer.found_inf = torch.isfinite(norm).logical_not().float()
    return True


def forget_skip(optimizer: Any) -> None:
    """Remove what `left_to_device` told the optimizer: its next step may be another one's."""
    vars(_own(optimizer)).pop(_FOUND_INF, None)


class ScheduleState:
    """The state of a learning rate schedule, and all that it sets in the optimizer's parameter groups."""

    def __init__(self, scheduler: Any, optimizer: Any) -> None:
        """Copy the present state; `scheduler` is one of torch's."""
        self._scheduler, self._optimizer = scheduler, _own(optimizer)
        self._state = copy.deepcopy(scheduler.state_dict())
        self._groups = [_settings(group) for group in self._optimizer.param_groups]

    def restore(self) -> None:
        """Put the copied state back."""
        self._scheduler.load_state_dict(self._state)
        for group, before in zip(self._optimizer.param_groups, self._groups, strict=True):
            group.update(before)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in group.items() if name != "params"}
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in settings.items()}


def _own(optimizer: Any) -> Optimizer:
    """Return torch's optimizer, out of accelerate's wrapper."""
    own: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return own
