"""Runs AdamW on float32 masters of low-precision weights, which also clips the gradient.

The model computes with 16-bit weights and every update is made in float32, as in DeepSpeed's bf16 engine but without
its flat copies. On a CPU the C++ kernel widens, scales, applies and rounds back in one pass over memory; anywhere else
`multi_tensor` updates many weights by each operation, without a question to the device.

A row of an embedding that has never had a gradient has no momentum either, so AdamW without weight decay does not
change it: the C++ kernel skips such rows, with exactly the same result. After its first gradient a row is updated in
every step.
"""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ftsys.distributed import rank
from ftsys.kernels.native.layers import takes
from ftsys.kernels.native.library import Library, native
from ftsys.kernels.native.optimizer import adamw, sum_of_squares, takes_weight
from ftsys.train.optimizer.multi_tensor import Clipping, Weight, gradient_norm, mixed, update

_LOG = logging.getLogger("ftsys")
MANY_ROWS = 4096
"""A weight with at least this many rows is updated by rows: it is a vocabulary, of which a step touches a part."""

_SETTINGS = ("params", "lr", "betas", "eps", "weight_decay")


class MasterAdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019) on masters, which `param_groups` holds.

    `live` has the model's own parameters, group by group in the same order. `lower` rounds them to low precision.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """Copy the model's float32 parameters in `groups`, which are as for `torch.optim.AdamW`, as masters."""
        given = [dict(group) for group in groups]
        self.live: list[list[Tensor]] = [list(group["params"]) for group in given]
        masters = [
            {**group, "params": [parameter.detach().float().clone() for parameter in group["params"]]}
            for group in given
        ]
        super().__init__(masters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._live_of: dict[Tensor, Tensor] = {
            master: parameter
            for group, live in zip(self.param_groups, self.live, strict=True)
            for master, parameter in zip(group["params"], live, strict=True)
        }
        self._awake: dict[Tensor, Tensor] = {}
        self._clipping: Clipping | None = None

    @torch.no_grad()
    def lower(self, dtype: torch.dtype) -> None:
        """Round the model's parameters to `dtype`, in place: references to them stay valid."""
        for parameter in (parameter for group in self.live for parameter in group):
            parameter.data = parameter.data.to(dtype)

    @torch.no_grad()
    def clip(self, largest_norm: float) -> Tensor:
        """Return the gradients' norm in float32; the next step scales them down to `largest_norm` if it is larger.

        After a norm that is not finite the next step changes nothing.
        """
        gradients = [parameter.grad for group in self.live for parameter in group if parameter.grad is not None]
        library = native()
        if library is not None and all(map(takes, gradients)):
            norm = _native_norm(library, gradients)
        else:
            norm = gradient_norm(gradients)
        self._clipping = Clipping(norm, largest_norm)
        return norm

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update each master that has a gradient, its own or its live parameter's; round the result into the weight."""
        clipping, self._clipping = self._clipping, None
        weights = [self._weights(group) for group in self.param_groups]
        update(mixed([w for w in members if not self._update_natively(w, clipping)] for members in weights), clipping)
        for master in (weight.master for members in weights for weight in members):
            if master.grad is not None:  # set by code that restores the moments from outside afterwards
                self._awake.pop(master, None)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of the live parameters to None, whatever `set_to_none` says."""
        for parameter in (parameter for group in self.live for parameter in group):
            parameter.grad = None

    def _weights(self, group: dict[str, Any]) -> list[Weight]:
        """Return the group's masters that have a gradient, with all that a step needs."""
        found = []
        for master in group["params"]:
            parameter = self._live_of[master]
            gradient = parameter.grad if master.grad is None else master.grad
            if gradient is not None:
                found.append(Weight(master, parameter, gradient, self._state_of(master), group))
        return found

    def _state_of(self, master: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[master]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=master.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(master), torch.zeros_like(master)
        elif state["step"].device != master.device:  # as torch loads an optimizer's state
            state["step"] = state["step"].to(master.device)
        return state

    def _update_natively(self, weight: Weight, clipping: Clipping | None) -> bool:
        """Return True where the C++ kernel updates this weight, once it has done so."""
        library, (master, parameter, gradient, state, group) = native(), weight
        if library is None or not takes_weight(master, parameter, gradient):
            return False
        if clipping is not None and not clipping.is_finite:
            return True
        state["step"] += 1
        by_rows = master.dim() == 2 and len(master) >= MANY_ROWS and not group["weight_decay"]
        awake = self._known_rows(master) if by_rows else None
        coefficient = 1.0 if clipping is None else clipping.coefficient
        adamw(library, master, parameter, gradient, state, group, coefficient, awake)
        return True

    def _known_rows(self, master: Tensor) -> Tensor:
        """Return a bool (rows,): rows that have had a gradient. In a loaded state these are the rows with moments."""
        awake = self._awake.get(master)
        if awake is None:
            state = self.state[master]
            awake = self._awake[master] = state["exp_avg_sq"].any(1) | state["exp_avg"].any(1)
        return awake


def with_masters(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return a MasterAdamW in place of torch's AdamW, and round `model` to bf16.

    Other optimizers and their weights stay as they are, with a notice; so does AdamW with `amsgrad` or `maximize`.
    Frozen weights are rounded too, and have no masters.
    The model then computes in bf16 by itself: autocast would cast every weight in every forward pass.
    """
    if isinstance(getattr(optimizer, "optimizer", optimizer), MasterAdamW):  # of the training before
        return optimizer
    if (reason := _why_no_masters(optimizer)) is not None:
        if rank() == 0:
            _LOG.warning("ftsys: master_weights=True has no effect, because %s", reason)
        return optimizer
    masters = MasterAdamW({name: group[name] for name in _SETTINGS} for group in optimizer.param_groups)
    masters.lower(torch.bfloat16)
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)
    return masters


def _why_no_masters(optimizer: torch.optim.Optimizer) -> str | None:
    if type(optimizer) is not torch.optim.AdamW:
        return f"the optimizer is {type(optimizer).__name__}, and masters are for torch's AdamW"
    unknown = [name for name in ("amsgrad", "maximize") if any(group.get(name) for group in optimizer.param_groups)]
    return f"AdamW on masters has no {' or '.join(unknown)}" if unknown else None


def masters_of(optimizer: Any) -> MasterAdamW | None:
    """Return the optimizer that holds masters, out of accelerate's wrapper; None for any other optimizer."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    return optimizer if isinstance(optimizer, MasterAdamW) else None


def _native_norm(library: Library, gradients: list[Tensor]) -> Tensor:
    """Return the norm in float32. torch's norm of a 16-bit tensor takes ten times as long on a CPU."""
    sums = [torch.tensor(sum_of_squares(library, gradient), dtype=torch.float32) for gradient in gradients]
    return torch.stack(sums).sum().sqrt()
