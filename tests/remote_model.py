"""A small model folder with code of its own: a model type that transformers does not know, named by `auto_map`.

The code writes a line into the file that the environment variable REMOTE_CODE_RAN names: proof that it ran.
"""

import json
import shutil
from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification

from ftsys.model_files.folder import TOKENIZER_FILES

MARK = "REMOTE_CODE_RAN"
_MARKING = f"""
import os

if os.environ.get("{MARK}"):
    with open(os.environ["{MARK}"], "a") as marks:
        marks.write(__name__ + "\\n")
"""
CONFIGURATION = f"""{_MARKING}
from transformers import BertConfig


class OddConfig(BertConfig):
    model_type = "odd"
"""
MODELING = f"""{_MARKING}
from transformers import BertForSequenceClassification

from .configuration_odd import OddConfig


class OddForSequenceClassification(BertForSequenceClassification):
    config_class = OddConfig
"""
TOKENIZATION = f"""{_MARKING}
from transformers import BertTokenizer


class OddTokenizer(BertTokenizer):
    pass
"""


def make_remote_model(folder: Path, minilm: Path, tokenizer: bool = False) -> Path:
    """Write the model, with a tokenizer of BERT's or, with `tokenizer`, in code of its own."""
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=128
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (minilm / name).is_file():
            shutil.copy(minilm / name, folder)
    (folder / "configuration_odd.py").write_text(CONFIGURATION)
    (folder / "modeling_odd.py").write_text(MODELING)
    code = {
        "AutoConfig": "configuration_odd.OddConfig",
        "AutoModelForSequenceClassification": "modeling_odd.OddForSequenceClassification",
    }
    _update(folder / "config.json", {"model_type": "odd", "architectures": None, "auto_map": code})
    if tokenizer:
        (folder / "tokenization_odd.py").write_text(TOKENIZATION)
        own = {"AutoTokenizer": [None, "tokenization_odd.OddTokenizer"]}
        _update(folder / "tokenizer_config.json", {"tokenizer_class": "OddTokenizer", "auto_map": own})
    return folder


def _update(path: Path, changes: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
