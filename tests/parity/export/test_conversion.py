"""Compares real exports of a small model with the stock model at several batch sizes and lengths."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ftsys.errors import ConfigError
from ftsys.export.convert import convert, stock_run
from ftsys.export.targets import TARGETS, Inputs, Run, check_installed

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def batch(sequences: int, length: int, padding: int = 0) -> Inputs:
    """Random tokens; the first sequence ends in padding."""
    random = np.random.default_rng(length)
    mask = np.ones((sequences, length), np.int64)
    mask[0, length - padding :] = 0
    return {
        "input_ids": random.integers(5, 200, (sequences, length)) * mask,
        "attention_mask": mask,
        "token_type_ids": (np.arange(length) > length // 2).astype(np.int64) * mask,
    }


@pytest.mark.parametrize(
    ("target", "close"), [("onnx", 1e-6), ("openvino", 1e-6), pytest.param("int8", 1e-2, marks=pytest.mark.long)]
)
def test_an_export_answers_as_the_stock_model_at_other_shapes(target: str, close: float, tmp_path: Path) -> None:
    try:
        check_installed(target)
    except ConfigError as missing:
        pytest.skip(str(missing))
    import torch
    from transformers import AutoModelForSequenceClassification, BertConfig
    from transformers.exporters import ExportedModel

    torch.manual_seed(0)
    config = BertConfig(**SIZES, vocab_size=200, max_position_embeddings=64, num_labels=3)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    convert(target, model, batch(2, 9), tmp_path)
    inputs = batch(7, 33, padding=1)
    right = stock_run(model)(inputs)
    compare(target, stock_run(model), tmp_path, close)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    loaded = ExportedModel.from_pretrained(tmp_path)
    again = loaded(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits
    assert np.abs(again.numpy() - right).max() < 1e-2, "transformers loads it too, OpenVINO's in bfloat16"
    assert "openvino_telemetry" not in sys.modules, "a conversion must not send events"


def compare(target: str, stock: Run, folder: Path, close: float) -> None:
    """Compare at several shapes, and close the exported model: two of OpenVINO must not be open at once."""
    exported = TARGETS[target].open(folder)
    for sequences, length, padding in ((1, 1, 0), (1, 5, 0), (3, 64, 40), (7, 33, 1)):
        inputs = batch(sequences, length, padding)
        found, right = exported(inputs), stock(inputs)
        assert found.shape == right.shape == (sequences, 3)
        assert np.abs(found - right).max() < close
