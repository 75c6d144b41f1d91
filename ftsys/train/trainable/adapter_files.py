"""Reads an adapter folder of peft and adds it to the model that it was trained on, without peft."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import PreTrainedModel
from typing_extensions import TypedDict

from ftsys.errors import ConfigError
from ftsys.files.untrusted import Line, check_regular, file_bytes, json_object, typed
from ftsys.model_files.config import ADAPTER_CONFIG, model_config
from ftsys.model_files.folder import resolve_model_folder

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_OTHER_KINDS = (
    "use_dora",
    "use_rslora",
    "fan_in_fan_out",
    "alpha_pattern",
    "rank_pattern",
    "lora_bias",
    "alora_invocation_tokens",
)


class _Adapter(TypedDict):
    """The keys of adapter_config.json that a merge depends on."""

    peft_type: str
    base_model_name_or_path: Line
    r: int
    lora_alpha: float


def is_adapter(folder: Path) -> bool:
    """Return True for a folder that holds an adapter of peft; `model_config` refuses one beside a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def base_folder(folder: Path) -> Path:
    """Return the folder of the model that an adapter was trained on.

    Raises ConfigError where there is none, and for one that transformers would not load alone.
    """
    base = resolve_model_folder(read_adapter_config(folder)["base_model_name_or_path"])
    model_config(base)
    if (base / ADAPTER_CONFIG).is_file():
        raise ConfigError(f"{str(folder)!r} is an adapter to {str(base)!r}, which is one itself. Merge that one first.")
    return base


def read_adapter_config(folder: Path) -> Any:
    """Return the keys of adapter_config.json that a merge needs. Raises ConfigError for any but plain LoRA."""
    path = folder / ADAPTER_CONFIG
    try:
        config = json_object(file_bytes(path))
        known = typed(_Adapter, {key: config.get(key) for key in _Adapter.__annotations__})
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be used ({error}). Save the adapter again.") from error
    others = [key for key in _OTHER_KINDS if config.get(key)]
    if known["peft_type"] != "LORA" or others or known["r"] < 1:
        kind = f"{others[0]}={config[others[0]]!r}" if others else f"peft_type={known['peft_type']!r}"
        raise ConfigError(f"{path}: {kind} is no plain LoRA adapter. Merge it with peft, and name the merged model.")
    return known


def trained_whole(folder: Path) -> set[str]:
    """Return the names of the weights that an adapter replaces, such as those of the head. Raises ConfigError."""
    path = folder / ADAPTER_WEIGHTS
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as stream:
            return {name.removeprefix(_PREFIX) for name in stream.keys() if ".lora_" not in name}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Train or copy it again.") from error


@torch.no_grad()
def add_adapter_weights(model: PreTrainedModel, folder: Path) -> None:
    """Add the products of an adapter to the weights of `model`, and replace those that were trained whole.

    Raises ConfigError for a file that cannot be read or belongs to another model.
    """
    config, path = read_adapter_config(folder), folder / ADAPTER_WEIGHTS
    try:
        check_regular(path)
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(path).items()}
        own = dict(model.named_parameters())
        for name, tensor in tensors.items():
            layer, is_adapter_weight, kind = name.rpartition(".lora_")
            if not is_adapter_weight:
                _check_shape(name, tensor, *own[name].shape)
                own[name].copy_(tensor)
            elif kind == "A.weight":
                own[f"{layer}.weight"] += config["lora_alpha"] / config["r"] * _product(layer, tensors, own, config)
            elif kind != "B.weight" or f"{layer}.lora_A.weight" not in tensors:
                raise ValueError(f"{name!r} is no part of a plain LoRA adapter")
    except (OSError, ValueError, SafetensorError, KeyError, RuntimeError) as error:
        reason = f"the model has no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"{path}: cannot be added to {config['base_model_name_or_path']!r} ({reason}). Train or copy it again."
        ) from error


def _product(layer: str, tensors: dict[str, torch.Tensor], own: dict[str, Any], config: Any) -> torch.Tensor:
    """Return what an adapter adds to the weight of a layer. Raises KeyError and, for another shape, ValueError."""
    rank, weight, names = config["r"], own[f"{layer}.weight"], [f"{layer}.lora_{part}.weight" for part in "AB"]
    if names[1] not in tensors:
        raise ValueError(f"there is no {names[1]!r}")
    down, up = (tensors[name] for name in names)
    _check_shape(names[0], down, rank, *weight.shape[1:])
    _check_shape(names[1], up, *weight.shape[:-1], rank)
    return up @ down


def _check_shape(name: str, tensor: torch.Tensor, *wanted: int) -> None:
    """Raise ValueError for another shape: torch would repeat a smaller tensor to fill a larger one."""
    if tuple(tensor.shape) != wanted:
        raise ValueError(f"{name!r} has the shape {tuple(tensor.shape)} instead of {wanted}")
