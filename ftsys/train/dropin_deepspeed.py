"""Guards a script's own DeepSpeed start: no needless compilation, no lock of the dead, no changed default unsaid."""

import logging
import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import transformers

from ftsys.files.untrusted import file_text, parse_json
from ftsys.train.deepspeed_setup import prepare_for_config

_LOG = logging.getLogger(__name__)


def prepare_for_script(arguments: transformers.TrainingArguments, environ: MutableMapping[str, str]) -> None:
    """Make DeepSpeed safe for the JSON of `arguments.deepspeed`, or else that of `accelerate launch`.

    Does nothing without DeepSpeed. Raises LaunchError when a dead process left the lock of an op that is needed.
    """
    if not arguments.deepspeed and environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() not in ("true", "1", "yes", "y"):
        return
    # For process groups that DeepSpeed makes itself: its default is ten minutes. It reads whole minutes.
    environ.setdefault("DEEPSPEED_TIMEOUT", str(math.ceil(arguments.ddp_timeout / 60)))
    config = _read(arguments.deepspeed or environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", ""))
    prepare_for_config(config, _LOG.warning)
    if isinstance(bf16 := config.get("bf16"), Mapping) and bf16.get("check_grad_overflow") is False:
        _LOG.warning(
            "bf16.check_grad_overflow = false in the DeepSpeed file: a NaN in a step's gradient spoils the weights"
        )


def _read(deepspeed: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the JSON; an empty one where it cannot be read, which transformers reports."""
    if isinstance(deepspeed, Mapping):
        return deepspeed
    try:
        text = deepspeed if deepspeed.lstrip().startswith("{") else file_text(deepspeed)
        read = parse_json(text)
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def fill_silent_keys(config: MutableMapping[str, Any], max_grad_norm: float) -> None:
    """Write the arguments' value of a key that the JSON leaves out, and that transformers fills only for "auto".

    DeepSpeed 0.19 clips at a norm of 1.0 where the JSON says nothing, whatever `max_grad_norm` is.
    """
    if "gradient_clipping" not in config:
        config["gradient_clipping"] = max_grad_norm
        if max_grad_norm != 1.0:
            _LOG.warning(
                "the DeepSpeed file has no gradient_clipping: max_grad_norm=%r is used, not DeepSpeed's default of 1.0",
                max_grad_norm,
            )
