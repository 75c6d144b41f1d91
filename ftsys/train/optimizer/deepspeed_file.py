"""Tries the optimizer and the scheduler that a user's DeepSpeed file names.

DeepSpeed makes them once the ranks have met and the run folder is claimed: a mistake would end there in a traceback.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from launcher.planner.deepspeed_config import AUTO

_ENOUGH = {"total_num_steps": 1_000_000_000}
"""What stands for "auto" beside 1: a schedule that ends before its warm-up would be warned of."""


def try_optimizer_and_scheduler(settings: Mapping[str, Any]) -> None:
    """Make the optimizer and the scheduler of these settings for one number.

    Raises ValueError for an unknown type, TypeError for an unknown parameter, and what torch or DeepSpeed raises for a
    value. Of DeepSpeed's own optimizers only the parameters of Adam and AdamW are tried: others are compiled code.
    """
    optimizer, scheduler = (settings.get(name) or {} for name in ("optimizer", "scheduler"))
    if optimizer.get("type") is not None:
        _try_optimizer(optimizer["type"], optimizer.get("params") or {})
    if scheduler.get("type") is not None:
        _try_scheduler(scheduler["type"], scheduler.get("params") or {})


def _try_optimizer(kind: str, params: Mapping[str, Any]) -> None:
    from deepspeed.runtime.config import DEEPSPEED_OPTIMIZERS

    if kind.lower() in ("adam", "adamw"):
        _try_adam(params)
    elif kind.lower() not in DEEPSPEED_OPTIMIZERS:
        if not hasattr(torch.optim, kind):
            raise ValueError(f"optimizer.type={kind!r} is no optimizer of DeepSpeed or torch.optim")
        getattr(torch.optim, kind)(_one_number(), **params)


def _try_adam(params: Mapping[str, Any]) -> None:
    """Try parameters of Adam: DeepSpeed takes one of three classes, by the device and the offload."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam

    torchs, *others = (_parameters(kind) for kind in (torch.optim.AdamW, FusedAdam, DeepSpeedCPUAdam))
    unknown = params.keys() - {"torch_adam"}.union(torchs, *others)
    if unknown:
        raise TypeError(f"optimizer.params: Adam has no {', '.join(sorted(unknown))}")
    torch.optim.AdamW(_one_number(), **{key: value for key, value in params.items() if key in torchs})


def _try_scheduler(kind: str, params: Mapping[str, Any]) -> None:
    from deepspeed.runtime import lr_schedules

    made = getattr(lr_schedules, kind, None) or getattr(lr_scheduler, kind, None)
    if made is None:
        raise ValueError(f"scheduler.type={kind!r} is no scheduler of DeepSpeed or torch.optim.lr_scheduler")
    filled = {key: _ENOUGH.get(key, 1) if value == AUTO else value for key, value in params.items()}
    made(torch.optim.AdamW(_one_number()), **filled)


def _parameters(kind: type) -> set[str]:
    return set(inspect.signature(kind).parameters)


def _one_number() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(1))]
