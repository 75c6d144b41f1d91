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
from ftsys.model_files.folder import resolve_model_folder

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
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
    """Return True for a folder that holds an adapter of peft and no whole model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "model.safetensors").is_file()


def base_folder(folder: Path) -> Path:
    """Return the folder of the model that an adapter was trained on. Raises ConfigError where there is none."""
    return resolve_model_folder(read_adapter_config(folder)["base_model_name_or_path"])


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
            layer, is_adapter_weight, _ = name.rpartition(".lora_")
            if not is_adapter_weight:
                own[name].copy_(tensor)
            elif name.endswith(".lora_A.weight"):
                product = tensors[f"{layer}.lora_B.weight"] @ tensor
                own[f"{layer}.weight"] += config["lora_alpha"] / config["r"] * product
    except (OSError, ValueError, SafetensorError, KeyError, RuntimeError) as error:
        reason = f"the model has no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"{path}: cannot be added to {config['base_model_name_or_path']!r} ({reason}). Train or copy it again."
        ) from error
