"""A device that ran out of memory: what was planned, what was used, and the micro-batch that would have fitted."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ftsys.errors import FtsysError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from launcher.planner.plan import Plan

GIB = 2**30
ROOM = 0.92
"""Share of a device's memory that a smaller micro-batch may take: the allocator holds pieces that nobody can use."""


@contextmanager
def memory_explained(plan: Plan, replan: Callable[[int], Plan], longest: int) -> Iterator[None]:
    """Raise FtsysError in place of the device's own error. `replan` gives the plan for a number of tokens at once;
    `longest` is the longest example's number of tokens, below which no micro-batch goes."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        used = torch.cuda.max_memory_allocated(device) if device is not None else None
        has = torch.cuda.get_device_properties(device).total_memory if device is not None else None
        smaller = None if used is None or has is None else smaller_micro_batch(plan, replan, longest, used, has)
        raise FtsysError(explanation(plan, used, has, smaller)) from error


def smaller_micro_batch(plan: Plan, replan: Callable[[int], Plan], longest: int, used: int, has: int) -> int | None:
    """The largest half, quarter, ... of the plan's tokens whose predicted bytes, scaled by how far this prediction
    was off, fit into ROOM of the device's; None where none does or nothing was predicted."""
    if plan.predicted is None:
        return None
    off = max(1.0, used / plan.predicted["bytes"]["total"])
    tokens = plan.micro_tokens // 2
    while tokens >= longest:
        predicted = replan(tokens).predicted
        if predicted is not None and predicted["bytes"]["total"] * off <= ROOM * has:
            return tokens
        tokens //= 2
    return None


def explanation(plan: Plan, used: int | None, has: int | None, smaller: int | None) -> str:
    """The message, with what is known."""
    planned = f"{plan.predicted['bytes']['total'] / GIB:.1f} GiB" if plan.predicted else "nothing, for want of sizes,"
    told = (
        f"; {used / GIB:.1f} GiB of {has / GIB:.1f} were used when one more allocation failed" if used and has else ""
    )
    advice = (
        f"Start again with --batch.micro_tokens {smaller}, which leaves the steps and their results as they are"
        if smaller
        else "No smaller micro-batch would do: use --engine.activation_checkpointing true, or a higher "
        "--engine.zero_stage on more GPUs; `ftlaunch plan` shows what fits"
    )
    return (
        f"the device is out of memory: {planned} was planned for micro-batches of {plan.micro_tokens:,} tokens"
        f"{told}. Look whether others use the GPU (nvidia-smi). {advice}; training goes on from the "
        "newest checkpoint."
    )
