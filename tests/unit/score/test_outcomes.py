"""Tests scores, labels and columns of each kind of head."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from ftsys.errors import ConfigError, DataError
from ftsys.model_files.calibration import Calibration, write_calibration
from ftsys.score.columns import Written, text_columns
from ftsys.score.outcomes import Head, head_of_model, sigmoid
from ftsys.score.reranker import cross_encoder_activation

TWO = {"id2label": {"0": "no", "1": "yes"}}
THREE = {"id2label": {"0": "a", "1": "b", "2": "c"}}
MANY = {**THREE, "problem_type": "multi_label_classification"}
ONE = {"id2label": {"0": "LABEL_0"}}
LOGITS = {2: [[0.0, 1.0], [2.0, 0.0]], 3: [[0.0, 1.0, -1.0], [3.0, 0.0, 0.1]], 1: [[0.5], [-2.0]]}


def head(config: Mapping[str, object], folder: Path = Path("nowhere")) -> Head:
    return head_of_model("m", folder, config)


def test_sigmoid_of_large_numbers() -> None:
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("config", "threshold", "labels"),
    [
        (TWO, None, ["yes", "no"]),
        (TWO, 0.75, ["no", "no"]),
        (TWO, 0.05, ["yes", "yes"]),
        (THREE, None, ["b", "a"]),
        (THREE, 0.8, [None, "a"]),
        (MANY, None, [["a", "b"], ["a", "b", "c"]]),
        (MANY, 0.6, [["b"], ["a"]]),
    ],
)
def test_labels(config: Mapping[str, object], threshold: float | None, labels: list[object]) -> None:
    rules = head(config) if threshold is None else head(config).with_threshold(threshold)
    assert rules.decide(rules.scores(np.array(LOGITS[len(rules.labels)]))) == labels


def test_a_threshold_of_the_callers_is_no_calibration() -> None:
    assert head(TWO).with_threshold(0.75).note == ""
    assert dict(head(TWO).with_threshold(0.75).thresholds) == {"yes": 0.75}, "the second of two classes alone"


def test_scores_are_those_of_the_pipeline_and_a_temperature_divides_the_logits() -> None:
    logits = np.array(LOGITS[3])
    exponents = np.exp(logits / 2)
    warm = Head(("a", "b", "c"), "softmax", temperature=2.0)
    np.testing.assert_allclose(warm.scores(logits), exponents / exponents.sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(head(MANY).scores(logits), 1 / (1 + np.exp(-logits)), rtol=1e-12)


def test_a_calibration_beside_the_model_is_used(tmp_path: Path) -> None:
    write_calibration(tmp_path, Calibration(2.0, {"yes": 0.8}, "f1"))
    rules, logits = head(TWO, tmp_path), np.array([[0.0, 1.0], [0.0, 4.0]])
    assert rules.scores(logits)[:, 1].round(4).tolist() == [0.6225, 0.8808]
    assert rules.decide(rules.scores(logits)) == ["no", "yes"]
    assert rules.with_threshold(0.5).decide(rules.scores(logits)) == ["yes", "yes"]
    assert rules.note == "calibrated: temperature 2; yes from 0.8"
    assert rules.with_threshold(0.5).note == "calibrated: temperature 2"
    with pytest.raises(ConfigError, match="a threshold for 'yes', and the model's classes are a, b, c"):
        head(THREE, tmp_path)


ST = "torch.nn.modules."


@pytest.mark.parametrize(
    ("config", "ours", "theirs"),
    [
        (ONE, "sigmoid", "sigmoid"),
        ({**ONE, "problem_type": "regression"}, "identity", "sigmoid"),
        ({**ONE, "sentence_transformers": {"activation_fn": f"{ST}linear.Identity"}}, "identity", "identity"),
        ({**ONE, "sbert_ce_default_activation_function": f"{ST}linear.Identity"}, "identity", "identity"),
        (TWO, "softmax", "identity"),
    ],
)
def test_activation(config: Mapping[str, object], ours: str, theirs: str) -> None:
    rules = head(config)
    assert (rules.activation, rules.is_number) == (ours, config.get("id2label") == ONE["id2label"])
    assert cross_encoder_activation(Path("nowhere"), config, len(rules.labels) or 1) == theirs


def test_an_activation_that_is_code_is_refused_and_the_newest_place_comes_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"activation 'os\.system'; known are"):
        head({**ONE, "sentence_transformers": {"activation_fn": "os.system"}})
    (tmp_path / "config_sentence_transformers.json").write_text(f'{{"activation_fn": "{ST}linear.Identity"}}')
    assert head(ONE, tmp_path).activation == "identity"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**TWO, "problem_type": "regression"}, "2 numbers"),
        ({"id2label": {"0": "x", "1": "x"}}, "the same name"),
    ],
)
def test_heads_that_are_refused(config: Mapping[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        head(config)


def test_a_model_without_names_has_the_names_of_transformers() -> None:
    assert head({"num_labels": 3}).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(("config", "threshold", "said"), [(ONE, 0.5, "needs classes"), (TWO, 1.5, "between 0 and 1")])
def test_thresholds_that_are_refused(config: Mapping[str, object], threshold: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        head(config).with_threshold(threshold)


def test_columns_of_the_output() -> None:
    rules = head(THREE)
    scores = rules.scores(np.array(LOGITS[3]))
    found = Written(rules, ("id",), prefix="m_").columns([(7,), (8,)], scores)
    assert list(found) == ["id", "m_label", "m_score_a", "m_score_b", "m_score_c"]
    assert (found["id"], found["m_label"], found["m_score_a"]) == ([7, 8], ["b", "a"], [0.244728, 0.905133])
    best = Written(rules, top_k=2).columns([(), ()], scores)
    assert list(best) == ["label", "label_1", "score_1", "label_2", "score_2"]
    assert (best["label_1"], best["label_2"]) == (["b", "a"], ["a", "c"])
    assert Written(head(ONE)).columns([(), ()], np.array([[0.25], [1 / 3]])) == {"score": [0.25, 0.333333]}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (Written(head(TWO), ("label",)), "two columns 'label'.*--prefix"),
        (Written(head(TWO), top_k=3), "not between 1 and the model's 2"),
        (Written(head(ONE), top_k=1), "--top-k needs classes"),
    ],
)
def test_columns_that_cannot_be_written(written: Written, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        written.check()


@pytest.mark.parametrize(
    ("header", "asked", "known", "texts"),
    [
        ("x y", ["x"], None, ("x",)),
        ("sentence1 sentence2 q", None, ("q",), ("q",)),
        ("id sentence1 sentence2 text", None, None, ("sentence1", "sentence2")),
        ("id text", None, None, ("text",)),
    ],
)
def test_text_columns(
    header: str, asked: list[str] | None, known: tuple[str, ...] | None, texts: tuple[str, ...]
) -> None:
    found, note = text_columns(header.split(), "x.csv", asked, known)
    assert found == texts
    assert bool(note) == (asked is None)


@pytest.mark.parametrize(("header", "known"), [("x y", None), ("id text", ("sentence",))])
def test_text_columns_that_nothing_tells(header: str, known: tuple[str, ...] | None) -> None:
    with pytest.raises(DataError, match=r"not known which columns hold the texts.*--text"):
        text_columns(header.split(), "x.csv", None, known)
