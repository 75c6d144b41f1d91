"""Switching the Hub off for this process, and making sure that it is off."""

import os
import sys

from ftsys.errors import ConfigError

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""What huggingface_hub, datasets and transformers read, once, when they are imported."""

_READ_AT_IMPORT = (("huggingface_hub.constants", "HF_HUB_OFFLINE"), ("datasets.config", "HF_HUB_OFFLINE"))


def switch_hub_off() -> None:
    """Forbid the libraries of this process, and of those it starts, to ask the Hub for anything.

    Raises ConfigError where one was imported before, with the Hub on: it would go on asking.
    """
    os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    for module, name in _READ_AT_IMPORT:
        if module in sys.modules and not getattr(sys.modules[module], name):
            raise ConfigError(
                f"this run works from a bundle, without the Hub, but {module} was imported with {name}=False: "
                f"set the environment variable {name}=1 before Python starts."
            )
