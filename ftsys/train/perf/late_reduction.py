"""Reduces gradients over the ranks of DDP after the passes, so that the passes can be CUDA graphs.

DDP's hooks reduce a bucket as soon as the backward pass has written its gradients. A replayed graph runs no hooks.
Here the passes run on the model inside DDP, which reduces nothing, and then every parameter is announced to DDP once:
its buckets, and so the order of its sums over ranks, stay the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class _Announcement(torch.autograd.Function):
    """Has a backward pass that reaches all parameters, and adds nothing to their gradients."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.count = len(parameters)
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.count


class _Announcer(nn.Module):
    """Stands for DDP's model for the time of one pass; it holds the parameters without registering them."""

    def __init__(self, parameters: tuple[nn.Parameter, ...]) -> None:
        super().__init__()
        self._given = parameters

    def forward(self, *ignored: Any) -> Tensor:
        """Return a scalar that depends on all parameters."""
        announced: Tensor = _Announcement.apply(*self._given)
        return announced


def reduce_gradients(model: DistributedDataParallel) -> None:
    """Replace each gradient by its mean over the ranks, as a backward pass under DDP does. Collective.

    Raises RuntimeError, from DDP, if a parameter took no part in the reduction before.
    """
    inner = model.module
    model.module = _Announcer(tuple(p for p in inner.parameters() if p.requires_grad))
    try:
        announced = model(0)
    finally:
        model.module = inner
    announced.backward()


def why_not_late(model: nn.Module) -> str | None:
    """Return the reason why the gradients of `model`, as the Trainer wraps it for several ranks, cannot come late."""
    if not isinstance(model, DistributedDataParallel):
        return f"{type(model).__name__} does not reduce gradients by DDP's rules"
    wrong = {
        "DDP looks for unused parameters (set ddp_find_unused_parameters=False)": model.find_unused_parameters,
        "DDP's graph is declared static": model.static_graph,
        "gradients are views of DDP's buckets": model.gradient_as_bucket_view,
    }
    return next((why for why, found in wrong.items() if found), None)


def inside_ddp(model: nn.Module) -> nn.Module:
    """Return the model that DDP wraps, or `model` where it is not wrapped."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the block on `stream`, after what the GPU was asked before and ahead of what it is asked later.

    DDP keeps the nodes that add up gradients, and these belong to the stream on which DDP was made. On the default
    stream no graph can contain them, so that DDP and all passes get one stream of their own. None changes nothing.
    """
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
