"""Hides log messages and warnings of the libraries that a user cannot act on. All others are shown as plain text.

Each filter names its logger or module and the text, as of transformers 5.23, DeepSpeed 0.19.8 and torch 2.13; a message
whose text changes is shown again. Imports no heavy library: filters work on names, before the libraries are loaded.
"""

import logging
import os
import re
import sys
import warnings
from typing import Any

from ftsys.console.printer import plain
from ftsys.ranks import is_main_rank

_LOG_MESSAGES: dict[str, tuple[str, ...]] = {
    # The code that loads a model reports a new head in one line of its own; MISMATCH and CONVERSION reports are kept.
    "transformers.modeling_utils": (r"LOAD REPORT(?![\s\S]*(MISMATCH|CONVERSION))",),
    "transformers.trainer_utils": (r"^The tokenizer has new PAD/BOS/EOS tokens that differ from the model config",),
    "DeepSpeed": (r"^Setting accelerator to CPU\. If you have GPU",),
}
"""Regular expressions by logger; a message that contains one is dropped."""

_WARNINGS: tuple[tuple[type[Warning], str, str], ...] = (
    # DeepSpeed uses names that torch 2.13 has renamed.
    (FutureWarning, r"`torch\.distributed\.\w+` is deprecated", r"torch\.distributed\.c10d_logger"),
    # The stock loader requests pinned memory on any device.
    (UserWarning, r"'pin_memory' argument is set as true but no accelerator is found", r"torch\.utils\.data\."),
)
"""Category, and regular expressions for the start of the message and the start of the warning module's name."""

_CHATTY_LOGGERS = ("accelerate", "datasets", "evaluate", "filelock", "fsspec", "httpcore", "httpx", "huggingface_hub")
"""Loggers whose INFO lines are about their own internals; a program that sets the root logger to INFO shows them."""

_FORMAT = warnings.formatwarning


class _DropMatching(logging.Filter):
    """Drops records whose message matches one of the patterns."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__()
        self.patterns = patterns

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(re.search(pattern, record.getMessage()) for pattern in self.patterns)


class _PlainRecord(logging.LogRecord):
    """A log message without terminal sequences: libraries repeat names that come out of files."""

    def getMessage(self) -> str:
        """Return the message as the printer would print it."""
        return plain(super().getMessage())


def quiet_libraries() -> None:
    """Install the filters. Call it before the libraries are imported, and again after importing transformers.

    Every process may call it any number of times. Environment variables that the user has set are kept.
    """
    _set_environment()
    if logging.getLogRecordFactory() is logging.LogRecord:  # not a program's own
        logging.setLogRecordFactory(_PlainRecord)
    if warnings.formatwarning is _FORMAT:
        warnings.formatwarning = lambda *found: plain(_FORMAT(*found))
    for name in _CHATTY_LOGGERS:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
    for name, patterns in _LOG_MESSAGES.items():
        logger = logging.getLogger(name)
        if not any(isinstance(found, _DropMatching) for found in logger.filters):
            logger.addFilter(_DropMatching(patterns))
    for category, message, module in _WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category, module=module)
    _hide_transformers_bars()


def _set_environment() -> None:
    # Keeps the tokenizers library parallel and prevents its warning when a data worker is forked later: the workers do
    # not tokenize.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if not (is_main_rank() and sys.stderr.isatty()):
        # On a terminal the bars of downloads are kept: a model takes minutes.
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _hide_transformers_bars() -> None:
    """Hide the bars for loading and writing weights, which take a moment. Downloads have bars of the Hub library."""
    module: Any = sys.modules.get("transformers.utils.logging")
    if module is not None:
        module.set_tqdm_hook(lambda _factory, args, _options: module.EmptyTqdm(*args))
