"""Gives lower layers lower learning rates: `train.layer_decay`.

The rate of depth d is `learning_rate * decay ** (L + 1 - d)`, for a model of L layers: 0 are the embeddings, N + 1 is
layer N, and L + 1 what comes after the layers: pooler, last norm and head. So the head has the full rate. This is the
scale of BEiT (Bao et al., "BEiT: BERT Pre-Training of Image Transformers", 2021); ELECTRA (Clark et al., 2020) counts
one depth more between the last layer and the head. The schedule multiplies each group's rate, as it does without decay.
"""

from typing import Any

import torch
from torch import nn

from ftsys.model_files.parts import count_layers, depth_of, part_of


def rate_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter, by its name."""
    names, base = [name for name, _ in model.named_parameters()], _base_of(model)
    layers = count_layers(names, base)
    return {name: decay ** (layers + 1 - depth_of(part_of(name, base), layers)) for name in names}


def _base_of(model: nn.Module) -> str:
    """Return the name of the encoder within the model; within a model of peft, with the names of its wrappers."""
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    prefix = next((name for name, module in model.named_modules() if module is inner), "")
    return f"{prefix}.{inner.base_model_prefix}" if prefix else str(inner.base_model_prefix)


def arrange_groups(optimizer: torch.optim.Optimizer, model: nn.Module, decay: float) -> None:
    """Leave out empty groups of a new optimizer, and with a `decay` below 1 give each depth groups of its own rate.

    Groups of the full rate come first: the first group's rate is the one that logs show. DeepSpeed takes no empty
    group, and one has no weights where all of its kind are frozen.
    """
    groups = [group for group in optimizer.param_groups if group["params"]]
    if decay < 1:
        by_name = rate_scales(model, decay)
        scales = {id(parameter): by_name[name] for name, parameter in model.named_parameters()}
        groups = sorted((part for group in groups for part in _by_scale(group, scales)), key=lambda part: -part["lr"])
    if groups:
        optimizer.param_groups[:] = groups


def _by_scale(group: dict[str, Any], scales: dict[int, float]) -> list[dict[str, Any]]:
    found: dict[float, list[Any]] = {}
    for parameter in group["params"]:
        found.setdefault(scales.get(id(parameter), 1.0), []).append(parameter)
    return [{**group, "params": members, "lr": group["lr"] * scale} for scale, members in found.items()]
