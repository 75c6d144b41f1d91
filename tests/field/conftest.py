"""Provides a tiny model with a real vocabulary, and small data sets of one's own."""

from collections.abc import Sequence
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A BERT of width 16 with the bundled model's tokenizer: a run of some steps takes a second."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    BertForSequenceClassification(config).bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, labels: Sequence[object]) -> None:
    """Write a CSV file with a text and a label in each row; None leaves the label empty."""
    rows = [f"text number {number},{'' if label is None else label}" for number, label in enumerate(labels)]
    path.write_text("\n".join(["text,label", *rows, ""]))


def write_own_run(folder: Path, model: Path, labels: dict[str, Sequence[object]], more: str = "") -> Path:
    """Write a run file on rows of one's own, by split; classes are "no" and "yes"."""
    for split, values in labels.items():
        write_rows(folder / f"{split}.csv", values)
    source = ", ".join(f'{split} = "{folder}/{split}.csv"' for split in labels)
    (folder / "run.toml").write_text(
        f"""output_dir = "{folder}/run"
[task]
name = "own"
columns = ["text"]
labels = ["no", "yes"]
metrics = ["accuracy"]
[data]
source = {{{source}}}
max_length = 16
[model]
name = "{model}"
[batch]
global_size = 4
[train]
epochs = 2
[engine]
precision = "fp32"
{more}"""
    )
    return folder / "run.toml"
