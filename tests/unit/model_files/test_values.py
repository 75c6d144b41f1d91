"""Tests that a value of config.json from which no model can be made is refused before anything is allocated."""

import json
from pathlib import Path

import pytest

from ftsys.errors import ConfigError
from ftsys.model_files.config import WrongModelConfig, model_config
from ftsys.model_files.folder import longest_sequence
from ftsys.model_files.load_errors import model_load_errors, tokenizer_load_errors

WRONG = [
    ("num_hidden_layers", 10**9, "from 1 to 10000"),
    ("num_hidden_layers", 0, "from 1 to 10000"),
    ("n_layer", 0, "from 1 to 10000"),
    ("num_hidden_groups", 0, "from 1 to 10000"),
    ("return_dict", "x", "true or false"),
    ("output_attentions", 1, "true or false"),
    ("output_hidden_states", [], "true or false"),
    ("num_hidden_layers", -3, "from 1 to 10000"),
    ("n_layers", 2.5, "from 1 to 10000"),
    ("n_layer", "12", "from 1 to 10000"),
    ("num_hidden_groups", 10**7, "from 1 to 10000"),
    ("inner_group_num", 10**9, "from 1 to 10000"),
    ("num_labels", 10**9, "from 0 to 1000000"),
    ("num_labels", "two", "from 0 to 1000000"),
    ("max_position_embeddings", 2**31 - 1, "from 1 to 67108864"),
    ("head_dim", 2**31 - 1, "from 1 to 67108864"),
    ("num_attention_heads", 0, "from 1 to"),
    ("num_attention_heads", None, "from 1 to"),
    ("hidden_size", 10**18, "from 1 to"),
    ("hidden_size", True, "from 1 to"),
    ("vocab_size", [1], "from 1 to"),
    ("max_position_embeddings", "512", "from 1 to"),
    ("type_vocab_size", -1, "from 0 to"),
    ("hidden_dropout_prob", "x", "a number from 0 to 1"),
    ("dropout", 5, "a number from 0 to 1"),
    ("classifier_dropout", float("nan"), "a number from 0 to 1"),
    ("pad_token_id", "x", "the id of a token"),
    ("pad_token_id", -2, "the id of a token"),
    ("model_type", ["bert"], "text"),
    ("id2label", 7, "an object"),
    ("label2id", [], "an object"),
]
RIGHT = [
    {"num_hidden_layers": 1},
    {"model_type": "deberta-v2", "type_vocab_size": 0},
    {"model_type": "own", "type_vocab_size": 0},
    {"return_dict": False, "output_attentions": True, "output_hidden_states": None},
    {"num_key_value_heads": None, "classifier_dropout": None, "model_type": None},
    {"pad_token_id": -1, "hidden_dropout_prob": 0, "attention_dropout": 1.0},
    {"num_hidden_groups": 100, "inner_group_num": 100, "num_labels": 10**6, "max_position_embeddings": 2**26},
    {"num_labels": None, "num_hidden_groups": None, "inner_group_num": 10_000},
    {"unknown_size": -7, "id2label": {"0": "a"}},
]


@pytest.mark.parametrize(("key", "value", "wanted"), WRONG)
def test_a_wrong_value_is_named(tmp_path: Path, key: str, value: object, wanted: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({key: value}))
    with pytest.raises(WrongModelConfig, match=f"config.json: {key}=.* is not .*{wanted}"):
        model_config(tmp_path)


@pytest.mark.parametrize("config", [{"model_type": "bert"}, {"model_type": "roberta", "num_hidden_layers": 2}])
def test_a_model_that_looks_up_token_types_needs_one(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**config, "type_vocab_size": 0}))
    said = rf"type_vocab_size=0 is not 1 or more, which a model of type '{config['model_type']}' needs"
    with pytest.raises(WrongModelConfig, match=said):
        model_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "type_vocab_size": 1}))
    model_config(tmp_path)


@pytest.mark.parametrize("config", RIGHT)
def test_a_right_value_is_taken(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_config(tmp_path) == config


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 is not a whole number from 1 to 10000"),
        ({"vocab_size": 2**40}, r"vocab_size=\d+ is not a whole number from 1 to 67108864"),
        ({"num_local_experts": 10**9}, "num_local_experts=1000000000 is not a number up to 10000"),
        ({"deeper": [{"n_conv_blocks": 1e9}]}, "n_conv_blocks=1000000000.0 is not a number up to 10000"),
    ],
)
def test_the_sizes_of_a_models_parts_are_checked_too(tmp_path: Path, part: dict[str, object], said: str) -> None:
    for config in ({"text_config": part}, {"anything": [part]}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(WrongModelConfig, match=said):
            model_config(tmp_path)


def test_what_a_part_may_say_otherwise_is_taken(tmp_path: Path) -> None:
    part = {"num_heads": [3, 6], "hidden_size": None, "dropout": "none", "num_experts": None, "num_layers": 3}
    config = {"text_config": part, "label2id": {"vocab_size": 0, "dim": 0}, "num_pooling_layers": [1, 2]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_config(tmp_path) == config


KERNEL = "kernels-community/flash-attn2@0123456"
LEADS = [
    ({"attn_implementation": KERNEL}, "attn_implementation='kernels-community/flash-attn2@0123456' names code of the"),
    ({"_attn_implementation": KERNEL}, "_attn_implementation='kernels-"),
    ({"experts_implementation": KERNEL}, "experts_implementation='kernels-"),
    ({"_attn_implementation": {"": "eager", "text_config": KERNEL}}, "_attn_implementation={'': 'eager'"),
    ({"text_config": {"attn_implementation": KERNEL}}, "attn_implementation='kernels-"),
    ({"configuration_files": ["config.4.0.0.json"]}, "configuration_files names other files in the place of this one"),
]


@pytest.mark.parametrize(("config", "said"), LEADS)
def test_a_config_that_leads_to_other_files_or_to_code_is_refused(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    with pytest.raises(WrongModelConfig, match=rf"config.json: {said}.*, which is not used here. Remove the key"):
        model_config(tmp_path)


def test_attention_of_transformers_own_is_taken(tmp_path: Path) -> None:
    config = {"_attn_implementation": "sdpa", "text_config": {"attn_implementation": None}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_config(tmp_path) == config


def test_groups_of_layers_are_counted_together(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_groups": 10_000, "inner_group_num": 10_000}))
    with pytest.raises(WrongModelConfig, match=r"num_hidden_groups=10000 of inner_group_num=10000 are more than 10000"):
        model_config(tmp_path)


def test_positions_that_are_counted_from_a_missing_padding_token_are_refused() -> None:
    roberta = {"model_type": "roberta", "max_position_embeddings": 514}
    assert longest_sequence({**roberta, "pad_token_id": 1}) == 512
    assert longest_sequence({**roberta, "model_type": "bert", "pad_token_id": None}) == 514
    with pytest.raises(ConfigError, match=r"pad_token_id=null.*'roberta'"):
        longest_sequence({**roberta, "pad_token_id": None})


@pytest.mark.parametrize("error", [KeyError("nope"), ZeroDivisionError("by zero"), RuntimeError("size\n mismatch")])
def test_what_transformers_raises_for_a_folder_is_explained(error: Exception) -> None:
    match = rf"the model in '/m' cannot be loaded .{type(error).__name__}: "
    with pytest.raises(ConfigError, match=match) as caught, model_load_errors(Path("/m")):
        raise error
    assert caught.value.__cause__ is error


def test_an_error_that_explains_itself_is_passed_on() -> None:
    with pytest.raises(ConfigError, match="a label is missing"), model_load_errors(Path("/m")):
        raise ConfigError("a label is missing")


class Panic(BaseException):
    """As the Rust library raises it: no Exception."""


Panic.__module__ = "pyo3_runtime"


@pytest.mark.parametrize(
    "error", [Exception("expected u32"), Panic("no entry found"), RecursionError("depth"), KeyError("a")]
)
def test_what_the_tokenizers_library_raises_is_explained(error: BaseException) -> None:
    match = "the tokenizer in '/m' cannot be loaded"
    with pytest.raises(ConfigError, match=match) as caught, tokenizer_load_errors(Path("/m")):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError(), AssertionError()])
def test_what_is_no_loaders_error_is_passed_on(error: BaseException) -> None:
    with pytest.raises(type(error)), tokenizer_load_errors(Path("/m")):
        raise error
