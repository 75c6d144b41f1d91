"""Provides the models that benchmarks train: the bundled one, BERTs with random weights (no download), or others."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftsys.errors import ConfigError
from ftsys.model_files.config import bundled_folder
from ftsys.model_files.folder import BUNDLED, TOKENIZER_FILES, check_model_folder

MINILM = "minilm"
"""Name of the bundled model, all-MiniLM-L6-v2."""

WIDTHS: dict[str, dict[str, Any]] = {
    "bert-base": {},
    "bert-large": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
}
"""Settings that differ from BERT-base's; vocabulary and tokenizer are the bundled model's."""

KNOWN = (MINILM, *WIDTHS)


def model_folders(names: Sequence[str], work: Path) -> dict[str, Path]:
    """Return name -> folder; models with random weights are saved below `work`.

    Raises ConfigError for a name that is not in `KNOWN`, not a folder, and not a model of the Hub or its cache.
    """
    return {name: _folder(name, work) for name in names}


def _folder(name: str, work: Path) -> Path:
    if name == MINILM:
        return check_model_folder(BUNDLED)
    if name in WIDTHS:
        return _random_weights(name, work / name)
    try:
        return check_model_folder(name)
    except ConfigError as error:
        raise ConfigError(f"--models {name!r} is none of {list(KNOWN)}, and no other model: {error}") from error


def _random_weights(name: str, folder: Path) -> Path:
    """Save a BERT of this width with two labels and weights of seed 0, and the bundled tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(num_labels=2, **WIDTHS[name])).save_pretrained(folder)
    for file in TOKENIZER_FILES:
        if (bundled_folder() / file).is_file():
            shutil.copy(bundled_folder() / file, folder)
    return folder
