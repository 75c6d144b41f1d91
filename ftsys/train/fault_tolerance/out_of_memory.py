"""Explains an out-of-memory error: planned bytes, used bytes, and the largest micro-batch that would fit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ftsys.errors import FtsysError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from launcher.planner.plan import Plan

GIB = 2**30
USABLE = 0.92
"""Fraction of a device's memory that a smaller micro-batch may use: the rest is lost to fragmentation."""


@contextmanager
def memory_explained(plan: Plan, replan: Callable[[int], Plan], longest: int) -> Iterator[None]:
    """Raise FtsysError in place of torch.OutOfMemoryError.

    `replan` returns the plan for a given number of tokens per micro-batch. `longest` is the number of tokens of the
    longest example, which is the smallest possible micro-batch.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        used = torch.cuda.max_memory_allocated(device) if device is not None else None
        has = torch.cuda.get_device_properties(device).total_memory if device is not None else None
        smaller = None if used is None or has is None else smaller_micro_batch(plan, replan, longest, used, has)
        raise FtsysError(explanation(plan, used, has, smaller)) from error


def smaller_micro_batch(plan: Plan, replan: Callable[[int], Plan], longest: int, used: int, has: int) -> int | None:
    """Return the largest number of tokens per micro-batch, out of a half, a quarter, ... of the plan's, that fits.

    A number fits if its predicted bytes, multiplied by the ratio of used to predicted bytes of this run, are at most
    USABLE times the device's memory `has`. Returns None if none fits or the plan has no prediction.
    """
    if plan.predicted is None:
        return None
    off = max(1.0, used / plan.predicted["bytes"]["total"])
    tokens = plan.micro_tokens // 2
    while tokens >= longest:
        predicted = replan(tokens).predicted
        if predicted is not None and predicted["bytes"]["total"] * off <= USABLE * has:
            return tokens
        tokens //= 2
    return None


def explanation(plan: Plan, used: int | None, has: int | None, smaller: int | None) -> str:
    """Return the error message; `used` and `has` are bytes, None if unknown."""
    planned = f"{plan.predicted['bytes']['total'] / GIB:.1f} GiB" if plan.predicted else "an unknown size"
    peak = f"; {used / GIB:.1f} GiB of {has / GIB:.1f} were used when the allocation failed" if used and has else ""
    advice = (
        f"Start again with --batch.micro_tokens {smaller}, which does not change the steps or their results"
        if smaller
        else "No smaller micro-batch would fit: use --engine.activation_checkpointing true, or a higher "
        "--engine.zero_stage on more GPUs; `ftlaunch plan` shows what fits"
    )
    return (
        f"the device is out of memory: {planned} was planned for micro-batches of {plan.micro_tokens:,} tokens"
        f"{peak}. Check whether other processes use the GPU (nvidia-smi). {advice}; training resumes from the "
        "newest checkpoint."
    )
