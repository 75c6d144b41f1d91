"""Tests the engine: logits that are not finite, a reranker's own prompt, a missing GPU, threads, and copies."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ftsys.errors import ConfigError
from ftsys.score.classifier import Classifier
from ftsys.score.engine import _device
from tests.parity.score.tiny_classifiers import PAIRS, save_classifier


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite(value: float, tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert")
    ours = Classifier(tmp_path)
    with torch.no_grad():
        ours._engine._model.classifier.bias[0] = value
    with pytest.raises(ConfigError, match=r"logits are not finite in fp32, so they are no scores. Use fp32"):
        ours.predict(PAIRS)


def test_a_prompt_that_a_cross_encoder_adds(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", 1)
    path = tmp_path / "config_sentence_transformers.json"
    prompts = {"query": "find: ", "none": ""}
    for name, said in (("query", "puts the prompt 'find: ' before the texts"), ("none", ""), (None, "")):
        path.write_text(json.dumps({"prompts": prompts, "default_prompt_name": name}))
        if said:
            with pytest.raises(ConfigError, match=said):
                Classifier(tmp_path).score_pairs(PAIRS)
        else:
            assert len(Classifier(tmp_path).score_pairs(PAIRS)) == len(PAIRS)


def test_a_gpu_beyond_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(_device("cuda:1")) == "cuda:1"
    assert str(_device("cuda")) == "cuda"
    with pytest.raises(ConfigError, match="device 'cuda:2' is not available here"):
        _device("cuda:2")


def test_threads_share_a_classifier(tmp_path: Path) -> None:
    save_classifier(tmp_path, "smollm3")
    ours = Classifier(tmp_path)
    parts = [PAIRS[at:] for at in range(6)]
    alone = [ours.predict(part, batch_tokens=20).scores for part in parts]

    def score(at: int) -> npt.NDArray[np.float64]:
        return ours.predict(parts[at % len(parts)], batch_tokens=20).scores

    with ThreadPoolExecutor(6) as pool:
        for at, found in enumerate(pool.map(score, range(60))):
            np.testing.assert_array_equal(found, alone[at % len(parts)])


def test_a_copy_of_a_classifier_scores_by_itself(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert")
    ours = Classifier(tmp_path)
    expected = ours.predict(PAIRS).scores
    copied = copy.deepcopy(ours)  # as processes get it too: both go through __getstate__
    np.testing.assert_array_equal(copied.predict(PAIRS).scores, expected)
