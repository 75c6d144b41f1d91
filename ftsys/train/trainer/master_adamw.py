"""Runs AdamW on float32 masters of low-precision weights: one pass, which also clips the gradient.

The model computes with 16-bit weights and every update is made in float32, as in DeepSpeed's bf16 engine but without
its flat copies: gradients are widened, scaled, applied and rounded back piece by piece, while a piece is in the cache.

A row of an embedding that has never had a gradient has no momentum either, so AdamW without weight decay does not
change it: such rows are skipped, with exactly the same result. After its first gradient a row is updated in every step.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ftsys.kernels.native.layers import takes
from ftsys.kernels.native.library import native
from ftsys.kernels.native.optimizer import adamw, sum_of_squares, takes_weight

PIECE = 1 << 19
"""Elements updated at once: masters, two moments and a gradient of this many fit a core's cache."""

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
        self.coefficient = 1.0

    @torch.no_grad()
    def lower(self, dtype: torch.dtype) -> None:
        """Round the model's parameters to `dtype`, in place: references to them stay valid."""
        for parameter in (parameter for group in self.live for parameter in group):
            parameter.data = parameter.data.to(dtype)

    @torch.no_grad()
    def clip(self, largest_norm: float) -> Tensor:
        """Return the gradients' norm in float32; the next step scales them down to `largest_norm` if it is larger."""
        gradients = [parameter.grad for group in self.live for parameter in group if parameter.grad is not None]
        norm = torch.stack([_sum_of_squares(gradient) for gradient in gradients]).sum().sqrt()
        # torch.nn.utils.clip_grad_norm_ adds the same millionth.
        self.coefficient = min(1.0, largest_norm / (float(norm) + 1e-6))
        return norm

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update each master that has a gradient, its own or its live parameter's; round the result into the weight."""
        for group in self.param_groups:
            for master in group["params"]:
                parameter = self._live_of[master]
                gradient = parameter.grad if master.grad is None else master.grad
                if gradient is not None:
                    self._update(master, parameter, gradient, group)
                if master.grad is not None:  # set by code that restores the moments from outside afterwards
                    self._awake.pop(master, None)
        self.coefficient = 1.0

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of the live parameters to None, whatever `set_to_none` says."""
        for parameter in (parameter for group in self.live for parameter in group):
            parameter.grad = None

    def _update(self, master: Tensor, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[master]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(master), torch.zeros_like(master)
        state["step"] += 1
        by_rows = master.dim() == 2 and len(master) >= MANY_ROWS and not group["weight_decay"]
        awake = self._known_rows(master) if by_rows else None
        library = native()
        if library is not None and takes_weight(master, parameter, gradient):
            adamw(library, master, parameter, gradient, state, group, self.coefficient, awake)
        elif awake is not None:
            awake |= gradient.any(1)
            self._update_rows(awake.nonzero().view(-1), master, parameter, gradient, group)
        else:
            self._update_pieces(master, parameter, gradient, group)

    def _update_pieces(self, master: Tensor, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[master]
        tensors = [tensor.view(-1) for tensor in (master, state["exp_avg"], state["exp_avg_sq"])]
        for start in range(0, master.numel(), PIECE):
            piece = slice(start, start + PIECE)
            updated = [tensor[piece] for tensor in tensors]
            self._apply(updated, gradient.view(-1)[piece], state["step"], group)
            parameter.view(-1)[piece].copy_(updated[0])

    def _known_rows(self, master: Tensor) -> Tensor:
        """Return a bool (rows,): rows that have had a gradient. In a loaded state these are the rows with moments."""
        awake = self._awake.get(master)
        if awake is None:
            state = self.state[master]
            awake = self._awake[master] = state["exp_avg_sq"].any(1) | state["exp_avg"].any(1)
        return awake

    def _update_rows(
        self, rows: Tensor, master: Tensor, parameter: Tensor, gradient: Tensor, group: dict[str, Any]
    ) -> None:
        state, size = self.state[master], max(1, PIECE // master.shape[1])
        tensors = (master, state["exp_avg"], state["exp_avg_sq"])
        for piece in rows.split(size):
            updated = [tensor.index_select(0, piece) for tensor in tensors]
            self._apply(updated, gradient.index_select(0, piece), state["step"], group)
            for tensor, values in zip(tensors, updated, strict=True):
                tensor.index_copy_(0, piece, values)
            parameter.index_copy_(0, piece, updated[0].to(parameter.dtype))

    def _apply(self, updated: list[Tensor], gradient: Tensor, step: Tensor, group: dict[str, Any]) -> None:
        widened = gradient.float()
        if self.coefficient != 1.0:
            widened = widened * self.coefficient
        master, exp_avg, exp_avg_sq = ([tensor] for tensor in updated)
        torch._fused_adamw_(
            master,
            [widened],
            exp_avg,
            exp_avg_sq,
            [],
            [step.to(widened.device)],
            lr=float(group["lr"]),
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def with_masters(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return a MasterAdamW in place of torch's AdamW, and round the model to bf16; other optimizers as they are.

    The model then computes in bf16 by itself: autocast would cast every weight in every forward pass.
    """
    if type(optimizer) is not torch.optim.AdamW:
        return optimizer
    masters = MasterAdamW({name: group[name] for name in _SETTINGS} for group in optimizer.param_groups)
    masters.lower(torch.bfloat16)
    return masters


def masters_of(optimizer: Any) -> MasterAdamW | None:
    """Return the optimizer that holds masters, out of accelerate's wrapper; None for any other optimizer."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    return optimizer if isinstance(optimizer, MasterAdamW) else None


def _sum_of_squares(gradient: Tensor) -> Tensor:
    """Return the sum in float32, piece by piece: torch's norm of a 16-bit tensor takes ten times as long on a CPU."""
    library = native()
    if library is not None and takes(gradient):
        return torch.tensor(sum_of_squares(library, gradient), dtype=torch.float32)
    widened = (piece.float() for piece in gradient.reshape(-1).split(PIECE))
    return torch.stack([torch.dot(piece, piece) for piece in widened]).sum()
