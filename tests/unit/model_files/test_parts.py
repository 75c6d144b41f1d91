"""Tests the parts of a model by the names of its weights, and the choice of frozen weights and of adapters by them."""

import pytest

from ftsys.errors import ConfigError
from ftsys.model_files.parts import depth_of, layers_named, part_of
from ftsys.model_files.trained_weights import adapter_targets, frozen_names

NAMES = [
    "bert.embeddings.word_embeddings.weight",
    *(f"bert.encoder.layer.{n}.{m}.weight" for n in range(12) for m in ("attention.self.query", "output.dense")),
    "bert.pooler.dense.weight",
    "classifier.weight",
]
LINEAR = [name.removesuffix(".weight") for name in NAMES[1:]]


@pytest.mark.parametrize(
    ("name", "base", "part", "depth"),
    [
        ("bert.embeddings.LayerNorm.bias", "bert", "embeddings", 0),
        ("electra.embeddings_project.weight", "electra", "embeddings", 0),
        ("bert.encoder.layer.1.attention.self.query.weight", "bert", "layers.1", 2),
        ("bert.encoder.layer.11.output.dense.bias", "bert", "layers.11", 12),
        ("bert.pooler.dense.weight", "bert", "encoder", 13),
        ("classifier.weight", "bert", "head", 13),
        ("distilbert.transformer.layer.0.ffn.lin1.weight", "distilbert", "layers.0", 1),
        ("albert.encoder.embedding_hidden_mapping_in.weight", "albert", "embeddings", 0),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight", "albert", "layers.0", 1),
        ("mpnet.encoder.relative_attention_bias.weight", "mpnet", "embeddings", 0),
        ("deberta.encoder.rel_embeddings.weight", "deberta", "embeddings", 0),
        ("pooler.dense.weight", "deberta", "head", 13),
        ("model.layers.3.attn.Wqkv.weight", "model", "layers.3", 4),
        ("model.embed_tokens.weight", "model", "embeddings", 0),
        ("model.norm.weight", "model", "encoder", 13),
        ("score.weight", "model", "head", 13),
    ],
)
def test_the_part_and_depth_of_a_weight(name: str, base: str, part: str, depth: int) -> None:
    assert (part_of(name, base), depth_of(part, 12)) == (part, depth)


@pytest.mark.parametrize(
    ("text", "layers"),
    [("layers.3", range(3, 4)), ("layers.0-3", range(4)), ("layers.3-1", range(3, 2)), ("layer.3", None)],
)
def test_layers_named(text: str, layers: range | None) -> None:
    assert layers_named(text) == layers


def test_the_frozen_names() -> None:
    assert frozen_names(NAMES, "bert", ["embeddings"]) == {NAMES[0]}
    assert len(frozen_names(NAMES, "bert", ["layers.0-3", "layers.11"])) == 10
    assert frozen_names(NAMES, "bert", ["encoder"]) == set(NAMES[:-1])
    assert frozen_names(NAMES, "bert", ["head"]) == {NAMES[-1]}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (["layers.12"], r"no 'layers.12'. It has 12 layer\(s\) .* the last one is 'layers.11'"),
        (["layers.9-12"], "no 'layers.9-12'"),
        (["encoder", "head"], "leaves no weight of this model to train"),
    ],
)
def test_what_cannot_be_frozen(parts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        frozen_names(NAMES, "bert", parts)


@pytest.mark.parametrize(
    ("asked", "count", "last"),
    [
        (["auto"], 12, "bert.encoder.layer.11.attention.self.query"),
        (["all"], 24, "bert.encoder.layer.11.output.dense"),
        (["query"], 12, "bert.encoder.layer.11.attention.self.query"),
        (["self.query", "dense"], 25, "bert.pooler.dense"),
    ],
)
def test_the_layers_that_get_an_adapter(asked: list[str], count: int, last: str) -> None:
    found = adapter_targets(LINEAR, "bert", asked)
    assert (len(found), found[-1]) == (count, last)


def test_a_target_that_no_layer_has() -> None:
    with pytest.raises(ConfigError, match=r"lora.target_modules=\['qery'\]: no linear .*'qery': did you mean 'query'"):
        adapter_targets(LINEAR, "bert", ["qery"])
