"""A Trainer whose model is bf16 itself, with float32 masters in its optimizer, where DeepSpeed does not do that."""

from typing import Any

import torch
import transformers
from torch import nn

from ftsys.train.trainer.master_adamw import MasterAdamW

_SETTINGS = ("params", "lr", "betas", "eps", "weight_decay")


class MasterWeightsTrainer(transformers.Trainer):
    """With `args.master_weights`: AdamW on masters, instead of autocast, which casts every weight in every forward."""

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As transformers'; then masters of the float32 weights, which are rounded to bf16."""
        optimizer = super().create_optimizer(model)
        if getattr(self.args, "master_weights", False) and type(optimizer) is torch.optim.AdamW:
            groups = [{name: group[name] for name in _SETTINGS} for group in optimizer.param_groups]
            self.optimizer = optimizer = MasterAdamW(groups)
            optimizer.lower(torch.bfloat16)
        return optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """The norm before clipping; with masters, the clipping itself is part of the optimizer's one pass."""
        masters = self.masters
        return super()._clip_grad_norm(model) if masters is None else masters.clip(self.args.max_grad_norm)

    @property
    def masters(self) -> MasterAdamW | None:
        """The optimizer that holds masters, out of accelerate's wrapper, if there is one."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return optimizer if isinstance(optimizer, MasterAdamW) else None
