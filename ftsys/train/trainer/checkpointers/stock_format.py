"""Finds training states that our checkpoint format cannot hold, so that the stock Trainer must save them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Trainer

from ftsys.train.checkpoint.files import SAFETENSORS_NAMES
from ftsys.train.optimizer.master_adamw import MasterAdamW

_STOCK_STATE_METHODS = (
    "_save_optimizer_and_scheduler", "_save_scaler", "_save_rng_state", "_load_optimizer_and_scheduler", "_load_scaler",
)  # fmt: skip
"""Methods that a subclass may override to save a state of its own kind; our format never calls them."""


def why_stock_format(trainer: Trainer) -> str | None:
    """Return why transformers must save a checkpoint of `trainer`; None where our format loses nothing."""
    sharded = getattr(trainer, "is_distributed_loading_by_transformers", False)  # newer than 5.17
    if trainer.is_fsdp_enabled or trainer.is_fsdp_xla_enabled or sharded:
        return "the model is sharded by another library"
    own = [name for name in _STOCK_STATE_METHODS if getattr(type(trainer), name) is not getattr(Trainer, name)]
    if own:
        return f"{type(trainer).__name__}.{own[0]} is your own"
    if trainer.args.save_on_each_node:
        return "save_on_each_node=True"
    if not _survives_json(trainer.lr_scheduler.state_dict()):
        return f"the state of {type(trainer.lr_scheduler).__name__} is not JSON"
    return None if trainer.is_deepspeed_enabled else _why_not_held(trainer)


def _why_not_held(trainer: Trainer) -> str | None:
    for name, tensor in trainer.model.state_dict().items():
        if _kind(tensor) not in SAFETENSORS_NAMES:
            return f"{name!r} of the model is of type {_kind(tensor)}"
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    if isinstance(optimizer, MasterAdamW):
        return None
    kind = type(optimizer).__name__
    if has_two_weights(optimizer):
        return f"{kind} evaluates other weights than it trains"
    owned = {id(parameter) for parameter in trainer.model.parameters()}
    if any(id(parameter) not in owned for group in optimizer.param_groups for parameter in group["params"]):
        return f"{kind} updates parameters that are not the model's"
    for state in optimizer.state.values():
        for key, value in state.items() if isinstance(state, Mapping) else [("", state)]:
            if isinstance(value, bool) or not isinstance(value, Tensor | int | float | None):
                return f"{kind} keeps {key!r} as a {type(value).__name__}"
            if isinstance(value, Tensor) and not (value.is_floating_point() or value.numel() == 1):
                return f"{kind} keeps {key!r} in {value.dtype}"
    return None


def has_two_weights(optimizer: Any) -> bool:
    """Return True for an optimizer with `train` and `eval`, which change the model's weights, as of schedulefree.

    Our format has no place for the other weights, nor for which of the two the model has.
    """
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def _kind(tensor: Tensor) -> str:
    return str(getattr(tensor, "dtype", type(tensor).__name__)).removeprefix("torch.")


def _survives_json(value: Any) -> bool:
    """Return True where JSON gives `value` back unchanged, with lists for tuples."""
    try:
        return json.loads(json.dumps(value)) == _lists(value)
    except (TypeError, ValueError):
        return False


def _lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return {key: _lists(item) for key, item in value.items()} if isinstance(value, dict) else value


def same_tensors(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Return True where the safetensors file has exactly these names, shapes and types; values are not compared."""
    from safetensors import safe_open

    if not path.is_file():
        return False
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        return names == set(tensors) and all(
            (tuple(part.get_shape()), part.get_dtype())
            == (tuple(tensors[name].shape), SAFETENSORS_NAMES[_kind(tensors[name])])
            for name in names
            for part in [file.get_slice(name)]
        )
