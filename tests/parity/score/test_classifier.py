"""Tests scores of unmodified models against stock transformers and sentence-transformers, to 1e-5 in float32."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ftsys
from ftsys.data.tokenize.tokenizer import SlowTokenizer
from ftsys.errors import ConfigError, DataError
from ftsys.run_folder.predictions import scores_from_logits
from ftsys.score.classifier import Classifier
from ftsys.score.outcomes import sigmoid
from tests.parity.models.tiny_models import VARIANTS
from tests.parity.score.tiny_classifiers import PAIRS, TEXTS, save_classifier, stock_logits

SLOW = ("bert", "roberta", "mpnet")
"""Families whose models transformers may give a tokenizer in Python."""
SINGLE: list[tuple[str, ...]] = [(text,) for text in TEXTS]


@pytest.mark.parametrize(
    ("variant", "slow"), [*((variant, False) for variant in VARIANTS), *((variant, True) for variant in SLOW)]
)
def test_scores_equal_the_stock_models(variant: str, slow: bool, tmp_path: Path) -> None:
    save_classifier(tmp_path, variant, slow=slow)
    ours = Classifier(tmp_path)
    assert ours.layout == "packed"
    assert isinstance(ours._engine.tokenizer, SlowTokenizer) == slow
    found = ours.predict(PAIRS, batch_tokens=40)
    expected = scores_from_logits(stock_logits(tmp_path, PAIRS))
    np.testing.assert_allclose(found.scores, expected, rtol=0, atol=1e-5)
    assert found.labels == [ours.labels[at] for at in expected.argmax(1)]


@pytest.mark.parametrize(("labels", "problem"), [(1, "regression"), (1, None), (3, "multi_label_classification")])
def test_scores_of_other_heads(labels: int, problem: str | None, tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", labels, problem)
    logits = stock_logits(tmp_path, SINGLE).astype(np.float64)
    expected = logits if problem == "regression" else sigmoid(logits)
    found = Classifier(tmp_path).predict(iter(TEXTS))
    np.testing.assert_allclose(found.scores, expected[:, 0] if labels == 1 else expected, rtol=0, atol=1e-5)
    assert (found.labels is None) == (labels == 1)


def test_a_model_that_cannot_be_packed_is_padded_with_the_reason(tmp_path: Path) -> None:
    from transformers import XLNetConfig, XLNetForSequenceClassification

    from tests.parity.score.tiny_classifiers import _fast_tokenizer

    XLNetForSequenceClassification(
        XLNetConfig(vocab_size=60, d_model=16, n_layer=1, n_head=2, d_inner=32, pad_token_id=1)
    ).save_pretrained(tmp_path)
    tokenizer = _fast_tokenizer(types=False)
    tokenizer.model_max_length = 32
    tokenizer.save_pretrained(tmp_path)
    ours = Classifier(tmp_path)
    assert "model type 'xlnet' is not among the packed ones" in ours.layout
    alone = np.concatenate([stock_logits(tmp_path, [pair]) for pair in PAIRS])
    np.testing.assert_allclose(ours.predict(PAIRS).scores, scores_from_logits(alone), rtol=0, atol=1e-5)


def test_an_encoder_without_a_head_is_refused(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert")
    from safetensors.numpy import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    encoder = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(encoder, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"no trained classification head: its weights lack classifier.bias"):
        Classifier(tmp_path)


def test_an_adapter_is_added_to_its_base_model(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    save_classifier(base, "bert", labels=2)
    save_classifier(adapter, "bert", labels=3)
    query = "bert.encoder.layer.0.attention.self.query"
    lora = {f"{query}.lora_A.weight": torch.ones(2, 16), f"{query}.lora_B.weight": torch.ones(16, 2) / 9}
    head = {name: weight for name, weight in load_file(adapter / "model.safetensors").items() if "classifier" in name}
    (adapter / "model.safetensors").unlink()
    tensors = {f"base_model.model.{name}": weight for name, weight in (lora | head).items()}
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2, "lora_alpha": 4.0}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    found = Classifier(adapter).predict(PAIRS).scores
    whole = {**load_file(base / "model.safetensors"), **head}
    whole[f"{query}.weight"] = whole[f"{query}.weight"] + 2 * (
        lora[f"{query}.lora_B.weight"] @ lora[f"{query}.lora_A.weight"]
    )
    save_file(whole, adapter / "model.safetensors", {"format": "pt"})
    (adapter / "adapter_config.json").unlink()
    np.testing.assert_allclose(found, scores_from_logits(stock_logits(adapter, PAIRS)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("named", [None, "torch.nn.modules.linear.Identity"])
@pytest.mark.parametrize("labels", [1, 3])
def test_pairs_score_as_in_a_cross_encoder(labels: int, named: str | None, tmp_path: Path) -> None:
    cross = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    save_classifier(tmp_path, "bert", labels)
    if named:
        config = json.loads((tmp_path / "config.json").read_text())
        config["sentence_transformers"] = {"activation_fn": named, "version": "5.0.0"}
        (tmp_path / "config.json").write_text(json.dumps(config))
    expected = cross.CrossEncoder(str(tmp_path), device="cpu").predict(PAIRS)
    found = Classifier(tmp_path).score_pairs(PAIRS)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_rows_that_are_no_pairs_are_refused_where_a_cross_encoder_would_read_them_otherwise(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", 1)
    for rows in (("query", "passage"), ["query", "passage"], [["query"], ["passage"]]):
        with pytest.raises(DataError, match=r"row 1: one text where a pair is needed. Give a list of pairs"):
            Classifier(tmp_path).score_pairs(rows)


def test_no_rows_give_no_scores_and_bad_settings_are_refused(tmp_path: Path) -> None:
    assert ftsys.Classifier is Classifier
    save_classifier(tmp_path, "bert")
    ours = Classifier(tmp_path)
    assert (ours.predict([]).labels, ours.predict([]).scores.shape) == ([], (0, 3))
    with pytest.raises(ConfigError, match="batch_tokens=0"):
        ours.predict(["a"], batch_tokens=0)
    with pytest.raises(ConfigError, match="--max-length 99 is more than the 32 tokens"):
        Classifier(tmp_path, max_length=99)
    with pytest.raises(ConfigError, match="precision 'fp8'"):
        Classifier(tmp_path, precision="fp8")
    with pytest.raises(ConfigError, match="device 'cuda:9' is not available"):
        Classifier(tmp_path, device="cuda:9")
