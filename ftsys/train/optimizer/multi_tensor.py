"""Clips gradients and runs AdamW on many weights by each operation, as torch.optim's fused optimizers do.

A GPU gets a few launches for a whole model, and the host waits for none of them: the norm, the factor that clips, the
count of steps and the decision to skip a step stay on the device.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

BUCKET = 1 << 27
"""Elements whose gradients are widened to float32 at once: 512 MiB, unless a single weight has more."""


class Weight(NamedTuple):
    """One weight to update: float32 master, the model's parameter, its gradient, and its parameter group's settings.

    `state` has float32 tensors on the master's device: the moments "exp_avg" and "exp_avg_sq", and their "step".
    """

    master: Tensor
    parameter: Tensor
    gradient: Tensor
    state: dict[str, Tensor]
    group: dict[str, Any]

    @property
    def settings(self) -> tuple[float, float, float, float, float]:
        """Learning rate, both betas, weight decay and epsilon: weights with the same ones are updated together."""
        group = self.group
        return float(group["lr"]), *group["betas"], group["weight_decay"], group["eps"]


@dataclass(frozen=True, eq=False)
class Clipping:
    """The gradients' `norm`, a float32 scalar, and the largest one that they may keep.

    The properties that are tensors are float32 scalars on the norm's device; the others wait for the device.
    """

    norm: Tensor
    largest_norm: float

    @cached_property
    def divisor(self) -> Tensor:
        """Divides the gradients; torch.nn.utils.clip_grad_norm_ adds the same millionth."""
        return ((self.norm + 1e-6) / self.largest_norm).clamp_(min=1.0)

    @cached_property
    def counts(self) -> Tensor:
        """0 where the norm is not finite, so that the step changes nothing, else 1."""
        return torch.lt(self.norm, math.inf, out=torch.empty_like(self.norm))  # NaN is not below infinity either

    @cached_property
    def skips(self) -> Tensor:
        """1 where the step changes nothing, else 0."""
        return 1 - self.counts

    @cached_property
    def coefficient(self) -> float:
        """Multiplies the gradients."""
        return min(1.0, self.largest_norm / (float(self.norm) + 1e-6))

    @cached_property
    def is_finite(self) -> bool:
        """Return True unless the step is skipped."""
        return bool(self.norm.isfinite())


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of all gradients together, a float32 scalar on their device."""
    # torch.nn.utils.get_total_norm would round the norm of a 16-bit gradient to 16 bits.
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2.0, dtype=torch.float32)))


def update(weights: Sequence[Weight], clipping: Clipping | None) -> None:
    """Take one AdamW step, and round the masters into the parameters."""
    for bucket in _buckets(weights):
        masters, parameters, gradients = ([weight[part] for weight in bucket] for part in range(3))
        widened = [torch.empty_like(master) for master in masters]
        torch._foreach_copy_(widened, gradients)
        _count_step([weight.state["step"] for weight in bucket], clipping)
        alike = sorted(zip(bucket, widened, strict=True), key=lambda member: member[0].settings)
        for settings, members in groupby(alike, key=lambda member: member[0].settings):
            _adamw(list(members), settings, clipping)
        torch._foreach_copy_(parameters, masters)


def mixed(groups: Iterable[Sequence[Weight]]) -> list[Weight]:
    """Return the weights of all groups, each group evenly spread: small weights alone fill a launch early."""
    placed = [(index / len(group), weight) for group in groups for index, weight in enumerate(group)]
    return [weight for _, weight in sorted(placed, key=lambda member: member[0])]


def _count_step(steps: Sequence[Tensor], clipping: Clipping | None) -> None:
    if clipping is None:
        torch._foreach_add_(steps, 1)
    else:  # without `alpha` torch takes a tensor of one element for a number, and asks the device for it
        torch._foreach_add_(steps, clipping.counts, alpha=1)


def _buckets(weights: Sequence[Weight]) -> Iterator[list[Weight]]:
    bucket: list[Weight] = []
    elements = 0
    for weight in weights:
        if bucket and elements + weight.master.numel() > BUCKET:
            yield bucket
            bucket, elements = [], 0
        bucket.append(weight)
        elements += weight.master.numel()
    if bucket:
        yield bucket


def _adamw(members: Sequence[tuple[Weight, Tensor]], settings: Sequence[float], clipping: Clipping | None) -> None:
    """Update masters and moments of weights with the same settings by their widened gradients."""
    states = [weight.state for weight, _ in members]
    torch._fused_adamw_(
        [weight.master for weight, _ in members],
        [gradient for _, gradient in members],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        **dict(zip(("lr", "beta1", "beta2", "weight_decay", "eps"), settings, strict=True)),
        amsgrad=False,
        maximize=False,
        grad_scale=None if clipping is None else clipping.divisor,
        found_inf=None if clipping is None else clipping.skips,
    )
