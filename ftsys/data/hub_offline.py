"""Switches the Hugging Face Hub off for this process and checks that it is off."""

import os
import sys

from ftsys.errors import ConfigError

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Environment variables that huggingface_hub, datasets and transformers read once, at import."""

_READ_AT_IMPORT = (("huggingface_hub.constants", "HF_HUB_OFFLINE"), ("datasets.config", "HF_HUB_OFFLINE"))


def switch_hub_off() -> None:
    """Keep the libraries of this process and of its child processes from sending requests to the Hub.

    Raises ConfigError if one of them was imported before with the Hub switched on: it would ignore the variables.
    """
    os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    for module, name in _READ_AT_IMPORT:
        if module in sys.modules and not getattr(sys.modules[module], name):
            raise ConfigError(
                f"this run works from a bundle, without the Hub, but {module} was imported with {name}=False: "
                f"set the environment variable {name}=1 before Python starts."
            )
