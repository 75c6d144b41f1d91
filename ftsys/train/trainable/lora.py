"""Trains low-rank adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021) made by peft.

The adapters are put into the transformers model itself, which stays a `PreTrainedModel`: packing, engines and
checkpoints treat it as any other. Trained are the adapters, the head, and weights that were not pre-trained; the rest
is frozen.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ftsys.config import LoraSection, RunConfig
from ftsys.data.bundle import model_folder_of
from ftsys.files.atomic import atomic_write_text
from ftsys.model_files.config import ADAPTER_CONFIG, folder_named
from ftsys.model_files.folder import BUNDLED
from ftsys.model_files.parts import part_of, within_layer
from ftsys.model_files.trained_weights import ALL, AUTO, adapter_targets
from ftsys.train.checkpoint.files import replace_safetensors
from ftsys.train.trainable.adapter_files import ADAPTER_WEIGHTS

_ADAPTER = "default"
"""Name under which peft keeps the adapter within the model; it is a part of the parameters' names."""
_PEFT_PREFIX = "base_model.model."
"""Prefix of all names in an adapter's file."""


def add_adapters(model: PreTrainedModel, lora: LoraSection, fresh: list[str], seed: int) -> None:
    """Put adapters into `model`, and freeze all weights but theirs, the head's and those in `fresh`.

    `fresh` has the names of weights that are not pre-trained. New weights depend on `seed` alone. Raises ConfigError
    for a name in `lora.target_modules` that no linear layer has.
    """
    from peft import LoraConfig, inject_adapter_in_model

    base, trained = model.base_model_prefix, set(fresh)
    trained |= {name for name, _ in model.named_parameters() if part_of(name, base) == "head"}
    whole = [parameter for name, parameter in model.named_parameters() if name in trained]
    alpha: Any = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha  # peft declares a whole number
    settings = LoraConfig(
        r=int(lora.r or 0), lora_alpha=alpha, lora_dropout=lora.dropout, target_modules=targets_of(model, lora)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, model, _ADAPTER)
    for parameter in whole:
        parameter.requires_grad_(True)


def targets_of(model: PreTrainedModel, lora: LoraSection) -> list[str]:
    """Return the ends of the names of the linear layers that get an adapter, as peft's `target_modules`."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    found = adapter_targets(linear, model.base_model_prefix, lora.target_modules)
    whole = tuple(lora.target_modules) not in (AUTO, ALL)
    return list(lora.target_modules) if whole else sorted({within_layer(name) for name in found})


def merged(weights: dict[str, Tensor], lora: LoraSection) -> dict[str, Tensor]:
    """Return the plain model's weights: each adapter's product is added to the weight that it adapts.

    `weights` are those of a model with adapters, float32, by name.
    """
    found = {}
    for name, weight in weights.items():
        if _is_adapters(name):
            continue
        layer, is_adapted, kind = name.rpartition(".base_layer.")
        if is_adapted and kind == "weight":
            down, up = (weights[f"{layer}.lora_{part}.{_ADAPTER}.weight"] for part in "AB")
            weight = weight + lora.alpha / int(lora.r or 1) * (up @ down)
        found[name.replace(".base_layer.", ".")] = weight
    return found


def _is_adapters(name: str) -> bool:
    return f".{_ADAPTER}." in name and ".lora_" in name


def save_adapter(
    folder: Path, model: PreTrainedModel, weights: dict[str, Tensor], lora: LoraSection, base_name: str
) -> None:
    """Write the trained weights in the files of peft's `save_pretrained`; `base_name` is the model that they belong to.

    `weights` are those of the model with adapters, by name, frozen ones included. Raises OSError and StorageError.
    """
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    tensors = {_PEFT_PREFIX + name.replace(f".{_ADAPTER}.", "."): weights[name] for name in trained}
    folder.mkdir(parents=True, exist_ok=True)
    replace_safetensors(folder / ADAPTER_WEIGHTS, {name: tensor.contiguous() for name, tensor in tensors.items()})
    config = _config(model, trained, lora, base_name)
    atomic_write_text(folder / ADAPTER_CONFIG, json.dumps(config, indent=2) + "\n")


def base_name(run: RunConfig) -> str:
    """Return the name under which an adapter names its model: a Hub name, else the absolute path of its folder."""
    own = run.bundle or run.model.name == BUNDLED or folder_named(run.model.name)
    return str(model_folder_of(run).resolve()) if own else run.model.name


def _config(model: PreTrainedModel, trained: list[str], lora: LoraSection, base_name: str) -> dict[str, Any]:
    from peft import LoraConfig

    settings: dict[str, Any] = model.peft_config[_ADAPTER].to_dict()
    whole = dict.fromkeys(_module_of(name, model.base_model_prefix) for name in trained if not _is_adapters(name))
    named = {"task_type": "SEQ_CLS", "modules_to_save": list(whole), "inference_mode": True}
    made = LoraConfig(**settings | named | {"base_model_name_or_path": base_name}).to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in made.items()}


def _module_of(name: str, base: str) -> str:
    """Return the module to save whole: a child of the model for the head, else the layer with the weight."""
    return name.partition(".")[0] if part_of(name, base) == "head" else name.rpartition(".")[0]
