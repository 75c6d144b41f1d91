"""Silences what the stack says and users cannot act on. Everything else still comes through.

Each silence names its logger or module and the text, as seen with transformers 5.23, DeepSpeed 0.19.8 and torch 2.13; a
message that changes its words comes back. Imports nothing heavy: it works on names, before the libraries are loaded.
"""

import logging
import os
import re
import sys
import warnings
from typing import Any

from ftsys.ranks import is_main_rank

_LOG_MESSAGES: dict[str, tuple[str, ...]] = {
    # The freshly made head is said in one line by whoever loads the model; MISMATCH and CONVERSION reports stay.
    "transformers.modeling_utils": (r"LOAD REPORT(?![\s\S]*(MISMATCH|CONVERSION))",),
    "transformers.trainer_utils": (r"^The tokenizer has new PAD/BOS/EOS tokens that differ from the model config",),
    "DeepSpeed": (r"^Setting accelerator to CPU\. If you have GPU",),
}
"""By logger: regular expressions that a message to drop contains."""

_WARNINGS: tuple[tuple[type[Warning], str, str], ...] = (
    # DeepSpeed calls names that torch 2.13 renamed.
    (FutureWarning, r"`torch\.distributed\.\w+` is deprecated", r"torch\.distributed\.c10d_logger"),
    # The stock loader asks for pinned memory whatever the device.
    (UserWarning, r"'pin_memory' argument is set as true but no accelerator is found", r"torch\.utils\.data\."),
)
"""Category, beginning of the message, beginning of the module that warns; the last two as regular expressions."""

_ABOUT_THEMSELVES = ("accelerate", "datasets", "evaluate", "filelock", "fsspec", "httpcore", "httpx", "huggingface_hub")
"""Loggers whose INFO lines are about their own workings; they show them once a program sets the root logger to INFO."""


class _Without(logging.Filter):
    """Drops the records whose message matches."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__()
        self.patterns = patterns

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(re.search(pattern, record.getMessage()) for pattern in self.patterns)


def quiet_libraries() -> None:
    """Set the filters; call it before the libraries are imported, and again after importing transformers.

    Every process of a run may call it, any number of times. A setting of the user's in the environment is kept.
    """
    _set_environment()
    for name in _ABOUT_THEMSELVES:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
    for name, patterns in _LOG_MESSAGES.items():
        logger = logging.getLogger(name)
        if not any(isinstance(found, _Without) for found in logger.filters):
            logger.addFilter(_Without(patterns))
    for category, message, module in _WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category, module=module)
    _hide_transformers_bars()


def _set_environment() -> None:
    # Keeps the tokenizers library parallel and stops its warning when a data worker is forked later; the workers only
    # read tokens that are made already.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if not (is_main_rank() and sys.stderr.isatty()):
        # A download's bar stays where somebody watches: a model takes minutes.
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _hide_transformers_bars() -> None:
    """No bars for loading and writing weights, which take a moment; those of downloads are the Hub library's own."""
    module: Any = sys.modules.get("transformers.utils.logging")
    if module is not None:
        module.set_tqdm_hook(lambda _factory, args, _options: module.EmptyTqdm(*args))
