"""Trained classifiers whose outputs are in another order than the task has: mapped by name at every door, or refused.

To add a row to `CONFIGS`: the `id2label` of a model's config.json (and more of its keys), the classes of the task, and
the head's output for each class, or a part of the message that refuses the model. `VARIANTS` of tests/parity has the
kinds of model whose head is reordered.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ftsys.config import RunConfig, build_run, resolve_task
from ftsys.errors import ConfigError
from ftsys.model_files.head_order import head_order
from ftsys.run_glue.results import predict_only
from ftsys.tasks import Task
from ftsys.train.predict import evaluate
from ftsys.train.setup import load_model
from tests.parity.models.tiny_models import VARIANTS, padded_inputs, sequences, small_model

NLI = ("entailment", "neutral", "contradiction")
OTHER = "its head was trained for"

CONFIGS: list[tuple[dict[str, Any], tuple[str, ...], tuple[int, ...] | str]] = [
    ({"id2label": {"0": "neg", "1": "pos"}}, ("neg", "pos"), (0, 1)),
    ({"id2label": {"0": "neg", "1": "pos"}}, ("pos", "neg"), (1, 0)),
    ({"id2label": {"1": "neg", "0": "pos"}}, ("neg", "pos"), (1, 0)),
    ({"id2label": {"0": "CONTRADICTION", "1": "NEUTRAL", "2": "ENTAILMENT"}}, NLI, (2, 1, 0)),
    ({"id2label": {"0": "contradiction", "1": "entailment", "2": "neutral"}}, NLI, (1, 2, 0)),
    ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, ("neg", "pos"), (0, 1)),
    ({}, ("neg", "pos"), (0, 1)),
    ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"pos": 0, "neg": 1}}, ("neg", "pos"), (1, 0)),
    ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}, ("a", "b"), "contradicts itself"),
    ({"id2label": {"zero": "a", "1": "b"}}, ("a", "b"), "has a wrong id"),
    ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": None}}, ("a", "b"), "has a wrong id"),
    ({"id2label": {"0": "0", "1": "1"}}, ("neg", "pos"), (0, 1)),
    ({"id2label": {"0": "0", "1": "1"}}, ("1", "0"), (1, 0)),
    ({"id2label": {"0": "1 star", "1": "2 stars"}}, ("2 stars", "1 star"), (1, 0)),
    ({"id2label": {"0": 1, "1": 0}}, ("0", "1"), (1, 0)),
    ({"id2label": {"0": "th\u00e9", "1": "cafe\u0301"}}, ("caf\u00e9", "th\u00e9"), (1, 0)),
    ({"id2label": {"0": True, "1": False}}, ("false", "true"), (1, 0)),
    ({"id2label": {"0": "negative", "1": "positive"}}, ("neg", "pos"), OTHER),
    ({"id2label": {"0": "neg", "1": "neg"}}, ("neg", "pos"), OTHER),
    ({"id2label": {"0": "pos", "1": "Pos"}}, ("Pos", "pos"), (1, 0)),
    ({"id2label": {"0": "neg", "1": "LABEL_1"}}, ("neg", "pos"), OTHER),
    ({"id2label": {"0": "a", "1": "b"}, "problem_type": "multi_label_classification"}, ("a", "b"), "several labels at"),
]


def task_of(labels: tuple[str, ...]) -> Task:
    return Task("mine", ("text",), labels, ("accuracy",))


@pytest.mark.parametrize(("config", "labels", "right"), CONFIGS, ids=str)
def test_outputs_are_mapped_by_name(
    config: dict[str, Any], labels: tuple[str, ...], right: tuple[int, ...] | str
) -> None:
    if isinstance(right, str):
        with pytest.raises(ConfigError, match=right):
            head_order("model 'm'", config, task_of(labels))
    else:
        found = head_order("model 'm'", config, task_of(labels))
        assert found.outputs == right
        assert ("mapped by name" in found.note) == (right != tuple(sorted(right)))


@pytest.mark.parametrize(
    ("problem", "right"),
    [
        ("multi_label_classification", (1, 0)),
        (None, (1, 0)),
        ("single_label_classification", "trained for one label at a time"),
    ],
)
def test_a_head_of_several_labels_is_mapped_by_name_too(problem: str | None, right: tuple[int, ...] | str) -> None:
    task = Task("mine", ("text",), ("a", "b"), ("micro_f1",), multi_label=True)
    config = {"id2label": {"0": "b", "1": "a"}, "problem_type": problem}
    if isinstance(right, str):
        with pytest.raises(ConfigError, match=right):
            head_order("model 'm'", config, task)
    else:
        assert head_order("model 'm'", config, task).outputs == right


def test_a_refusal_names_both_and_the_choices() -> None:
    with pytest.raises(ConfigError) as refused:
        head_order("model 'm'", {"id2label": {"0": "a", "1": "b"}}, task_of(("no", "yes")))
    for part in ("model 'm'", "['a', 'b']", "['no', 'yes']", "label2id", "model.head", "--head", '"new"', '"keep"'):
        assert part in str(refused.value)


@pytest.mark.parametrize(("variant", "classes"), [*((each, 3) for each in VARIANTS), ("roberta", 16), ("bert", 16)])
def test_each_kind_of_head_gives_the_same_scores_by_name(tmp_path: Path, variant: str, classes: int) -> None:
    """The trained order is the task's, reversed; 16 classes are as many as the head's hidden layer has units."""
    names = [f"c{index}" for index in range(classes)]
    trained = small_model(variant, classes).float().eval()
    trained.config.id2label, trained.config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
    trained.save_pretrained(tmp_path)
    inputs = padded_inputs(trained, sequences([5, 9]))
    model, fresh = load_model(tmp_path, task_of(tuple(reversed(names))), seed=1)
    assert fresh == []
    with torch.no_grad():
        right, found = trained(**inputs).logits, model.eval()(**inputs).logits
    torch.testing.assert_close(found, right.flip(1))
    assert model.config.id2label == dict(enumerate(reversed(names)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A tiny BERT with a real tokenizer and a head for ("pos", "neg"), and rows that have the label that it gives."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("trained")
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), id2label={0: "pos", 1: "neg"}, label2id={"pos": 0, "neg": 1}, **small
    )
    model = BertForSequenceClassification(config).eval()
    texts = [f"the {a} saw a {b}" for a in ("cat", "dog", "red hen", "old fox") for b in ("train", "house", "bird")]
    with torch.no_grad():
        encoded = tokenizer(texts, return_tensors="pt", padding=True)
        logits = model(**encoded).logits
        model.classifier.bias[1] -= (logits[:, 1] - logits[:, 0]).median() + 1e-6
        given = model(**encoded).logits.argmax(-1).tolist()
    assert 0 < sum(given) < len(given)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [f"{text},{('pos', 'neg')[label]}\n" for text, label in zip(texts, given, strict=True)]
    (folder / "rows.csv").write_text("text,label\n" + "".join(rows))
    return folder


def run_of(folder: Path, output: Path, labels: tuple[str, ...], **model: str) -> RunConfig:
    rows = str(folder / "rows.csv")
    return build_run(
        {
            "output_dir": str(output),
            "task": {"name": "mine", "columns": ["text"], "labels": list(labels)},
            "data": {"source": {"train": rows, "validation": rows}, "max_length": 16},
            "model": {"name": str(folder / "model"), **model},
            "engine": {"precision": "fp32"},
        }
    )


@pytest.mark.parametrize("labels", [("neg", "pos"), ("pos", "neg")])
def test_run_glue_and_evaluate_count_by_name(
    trained: Path, tmp_path: Path, labels: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(trained, tmp_path, labels)
    assert predict_only(run, resolve_task(run), ["validation"]).metrics["validation"]["accuracy"] == 1.0
    assert ("they are mapped by name" in capsys.readouterr().err) == (labels[0] == "neg")
    shutil.copytree(trained / "model", tmp_path / "model")
    assert evaluate(run) == 0
    assert "1.0" in capsys.readouterr().out


HEADS: list[tuple[tuple[str, ...], str, list[int] | str | None]] = [
    # the task's classes, model.head, and the outputs that the head's rows had (None: a new head)
    (("neg", "pos"), "auto", [1, 0]),
    (("POS", "NEG"), "auto", [0, 1]),
    (("no", "yes"), "auto", OTHER),
    (("no", "yes"), "keep", [0, 1]),
    (("no", "yes"), "new", None),
    (("neg", "pos"), "new", None),
    (("neg", "pos", "neutral"), "auto", None),
    (("neg", "pos", "neutral"), "keep", "has no trained head with 3 output"),
]


@pytest.mark.parametrize(("labels", "head", "right"), HEADS)
def test_training_starts_from_a_head_that_is_mapped_kept_or_new(
    trained: Path, labels: tuple[str, ...], head: str, right: list[int] | str | None
) -> None:
    from safetensors.torch import load_file

    before = load_file(trained / "model/model.safetensors")["classifier.weight"]
    if isinstance(right, str):
        with pytest.raises(ConfigError, match=right):
            load_model(trained / "model", task_of(labels), 1, head)
        return
    model, fresh = load_model(trained / "model", task_of(labels), 1, head)
    if right is None:
        assert {"classifier.weight", "classifier.bias"} <= set(fresh)
        again = load_model(trained / "model", task_of(labels), 1, head)[0]
        assert torch.equal(model.classifier.weight, again.classifier.weight), "every rank makes the same head"
        assert not any(torch.equal(row, old) for row in model.classifier.weight for old in before)
    else:
        assert fresh == []
        assert torch.equal(model.classifier.weight, before[right])


def test_a_head_of_another_size_predicts_nothing(trained: Path, tmp_path: Path) -> None:
    run = run_of(trained, tmp_path, ("neg", "pos", "neutral"))
    with pytest.raises(ConfigError, match="is not trained for a task"):
        predict_only(run, resolve_task(run), ["validation"])
    shutil.copytree(trained / "model", tmp_path / "model")
    with pytest.raises(ConfigError, match="was trained for labels"):
        evaluate(run)
