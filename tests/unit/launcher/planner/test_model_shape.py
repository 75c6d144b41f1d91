"""Tests parameters derived from config.json against the models that transformers builds from the same configuration."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer

from ftsys.errors import ConfigError
from ftsys.model_files.folder import longest_sequence
from launcher.planner.model_shape import FAMILIES, model_shape

DEBERTA_V3 = {
    "relative_attention": True,
    "pos_att_type": "p2c|c2p",
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
}
MODELS: dict[str, dict[str, Any]] = {
    **{f"{family}, defaults": {"model_type": family} for family in FAMILIES},
    "BERT-large": {
        "model_type": "bert",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    "MiniLM-L6": {"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6},
    "XLM-R-large": {
        "model_type": "xlm-roberta",
        "vocab_size": 250002,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
    },
    "ELECTRA of one width": {"model_type": "electra", "embedding_size": 768, "hidden_size": 768},
    "ALBERT, two groups": {"model_type": "albert", "hidden_size": 64, "num_hidden_groups": 2, "inner_group_num": 2},
    "DeBERTa-v3-base": {
        "model_type": "deberta-v2",
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        **DEBERTA_V3,
    },
    "DeBERTa with keys of its own": {
        "model_type": "deberta-v2",
        "num_hidden_layers": 2,
        **DEBERTA_V3,
        "share_att_key": False,
        "type_vocab_size": 2,
        "position_biased_input": True,
        "position_buckets": -1,
        "embedding_size": 96,
    },
    "ModernBERT with biases": {
        "model_type": "modernbert",
        "num_hidden_layers": 4,
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
    },
    "Llama with shared keys": {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "num_key_value_heads": 8,
        "attention_bias": True,
        "mlp_bias": True,
    },
}


def built(config: dict[str, Any], outputs: int) -> torch.nn.Module:
    """Build transformers' own model of the configuration, without memory for its weights."""
    settings = AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})
    settings.num_labels = outputs
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(settings)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_there_in_its_place(name: str) -> None:
    model, shape = built(MODELS[name], 3), model_shape(MODELS[name], 3)
    assert [(t.name, t.shape) for t in shape.tensors] == [(n, tuple(p.shape)) for n, p in model.named_parameters()]
    assert shape.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_are_told_apart_and_decay_is_the_trainers(name: str) -> None:
    model, shape = built(MODELS[name], 3), model_shape(MODELS[name], 3)
    tables = {f"{n}.weight" for n, module in model.named_modules() if isinstance(module, torch.nn.Embedding)}
    assert {t.name for t in shape.tensors if t.embedding} == tables
    decayed = set(Trainer.get_decay_parameter_names(None, model))
    assert [{t.name for t in group} for group in shape.groups] == [
        decayed,
        {t.name for t in shape.tensors} - decayed,
    ]


@pytest.mark.parametrize("name", MODELS)
def test_what_can_be_recomputed_is_what_transformers_recomputes(name: str) -> None:
    model = built(MODELS[name], 3)
    assert model_shape(MODELS[name], 3).recomputable == model.supports_gradient_checkpointing


def test_a_layer_that_is_computed_many_times_counts_as_often() -> None:
    shape = model_shape({"model_type": "albert", "num_hidden_layers": 12, "hidden_size": 64}, 2)
    one = model_shape({"model_type": "albert", "num_hidden_layers": 1, "hidden_size": 64}, 2)
    assert shape.parameters == one.parameters
    in_layer = sum(t.elements for t in one.tensors if "albert_layer_groups" in t.name)
    assert shape.computed_parameters == one.computed_parameters + 11 * in_layer


@pytest.mark.parametrize("name", MODELS)
def test_the_longest_sequence_is_the_data_paths(name: str) -> None:
    config = AutoConfig.for_model(
        MODELS[name]["model_type"], **{k: v for k, v in MODELS[name].items() if k != "model_type"}
    ).to_dict()
    assert model_shape(config, 2).longest == longest_sequence(config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "model type None is not among those whose sizes are known (bert, "),
        ({"model_type": "t5"}, "model type 't5' is not among"),
        ({"model_type": "bert", "hidden_size": "768"}, "config.json has hidden_size='768', which is not a size"),
        ({"model_type": "bert", "num_hidden_layers": -1}, "config.json has num_hidden_layers=-1"),
        ({"model_type": "bert", "attention_probs_dropout_prob": 2}, "dropout_prob=2, which is not a probability"),
        ({"model_type": "deberta-v2", "conv_kernel_size": 3}, "DeBERTa-v2's convolution is not modelled"),
    ],
)
def test_what_is_no_known_model_says_why(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model_shape(config, 2)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "outputs", "parameters"),
    [("bert, defaults", 2, 109_483_778), ("BERT-large", 2, 335_143_938), ("XLM-R-large", 3, 559_893_507)],
)
def test_well_known_sizes(name: str, outputs: int, parameters: int) -> None:
    assert model_shape(MODELS[name], outputs).parameters == parameters
