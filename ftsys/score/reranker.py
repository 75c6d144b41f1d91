"""Reads what sentence-transformers wrote about a reranker: the activation of its logits, and a prompt of its texts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftsys.errors import ConfigError
from ftsys.files.untrusted import file_bytes, json_object

SIGMOID, IDENTITY = "sigmoid", "identity"
OWN_CONFIG = "config_sentence_transformers.json"
_KNOWN = {
    "torch.nn.modules.activation.Sigmoid": SIGMOID,
    "torch.nn.Sigmoid": SIGMOID,
    "torch.nn.modules.linear.Identity": IDENTITY,
    "torch.nn.Identity": IDENTITY,
}
"""Activations by the dotted path that a configuration names; no code is imported by such a name."""


def activation_named(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return the activation that the model's files name for its head; None if they name none.

    It is read where sentence-transformers 6, 4 and 2 wrote it. Raises ConfigError for one that is not known.
    """
    own = config.get("sentence_transformers")
    places = (
        _own_config(folder).get("activation_fn"),
        own.get("activation_fn") if isinstance(own, dict) else None,
        config.get("sbert_ce_default_activation_function"),
    )
    named = next((name for name in places if name is not None), None)
    if named is None:
        return None
    if not isinstance(named, str) or named not in _KNOWN:
        raise ConfigError(
            f"{str(folder)!r}: its head has the activation {named!r}; known are {', '.join(sorted(_KNOWN))}. Correct "
            "it in config.json."
        )
    return _KNOWN[named]


def cross_encoder_activation(folder: Path, config: Mapping[str, Any], outputs: int) -> str:
    """Return the activation of `CrossEncoder.predict`: the named one, else a sigmoid for one output, none for more."""
    return activation_named(folder, config) or (SIGMOID if outputs == 1 else IDENTITY)


def check_no_prompt(folder: Path) -> None:
    """Raise ConfigError for a model to whose texts `CrossEncoder.predict` adds a prompt by itself."""
    own = _own_config(folder)
    prompts, name = own.get("prompts"), own.get("default_prompt_name")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    if prompt:
        raise ConfigError(
            f"{folder / OWN_CONFIG}: CrossEncoder puts the prompt {prompt!r} before the texts, which ftsys does not. "
            "Put it before the first text of each pair, and remove default_prompt_name from this file."
        )


def _own_config(folder: Path) -> dict[str, Any]:
    path = folder / OWN_CONFIG
    try:
        return json_object(file_bytes(path)) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Download or save the model again.") from error
