"""The models that benchmarks train: the bundled weights, widths with random weights (no download), or any other."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftsys.errors import ConfigError
from ftsys.model_files.config import bundled_folder
from ftsys.model_files.folder import BUNDLED, TOKENIZER_FILES, check_model_folder

MINILM = "minilm"
"""The bundled all-MiniLM-L6-v2 weights."""

WIDTHS: dict[str, dict[str, Any]] = {
    "bert-base": {},
    "bert-large": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
}
"""BERT's settings where they are not BERT-base's own; the vocabulary and the tokenizer are the bundled model's."""

KNOWN = (MINILM, *WIDTHS)


def model_folders(names: Sequence[str], work: Path) -> dict[str, Path]:
    """Folder of each model, by the name it was asked for; what has to be made is made below `work`.

    Raises ConfigError for a name that is none of `KNOWN`, no folder, and no model that the Hub's cache or the Hub has.
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
    """A BERT of this width with a head of two labels and weights of seed 0, saved with the bundled tokenizer."""
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
