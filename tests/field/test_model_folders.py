"""Tests which sequence classifiers of transformers are fed how: packed, padded on one side, or refused with the reason.

Every type of model has a row: a small random model of it is made and asked. Add a row for a new type.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from ftsys.data.batching.collate import pad
from ftsys.data.store.in_memory import TokenizedSplit, read_tokenized
from ftsys.errors import ConfigError
from ftsys.model_files.folder import check_model_folder
from ftsys.model_files.unpaddable import UNPADDABLE
from ftsys.models.inputs import name_pad_token
from ftsys.models.packed import why_not_packable
from ftsys.train.padding_side import padding_side

PAD, END, WORDS = 1, 2, 60
WIDTHS = "hidden_size embedding_size dim d_model n_embd emb_dim word_embed_proj_dim moe_intermediate_size"
DOUBLE = "intermediate_size hidden_dim d_inner n_inner d_ff ffn_dim encoder_ffn_dim decoder_ffn_dim"
LAYERS = "num_hidden_layers n_layers n_layer num_layers num_decoder_layers encoder_layers decoder_layers"
HEADS = "num_attention_heads n_heads n_head num_heads encoder_attention_heads decoder_attention_heads"
POSITIONS = "max_position_embeddings n_positions max_seq_len max_sequence_length"
SMALL: dict[str, Any] = {
    "vocab_size": WORDS,
    **dict.fromkeys(WIDTHS.split(), 16),
    **dict.fromkeys(DOUBLE.split(), 32),
    **dict.fromkeys(LAYERS.split(), 2),
    **dict.fromkeys(HEADS.split(), 4),
    **dict.fromkeys(POSITIONS.split(), 40),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "d_kv", "head_dim", "block_size"), 4),
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "attention_window": 8,
    # Large enough that attention is far from uniform.
    "initializer_range": 0.3,
    "init_std": 0.3,
}
_LATENT = {
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "num_key_value_heads": 4,
    "n_group": 1,
    "topk_group": 1,
}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
_MAMBA = {"mamba_d_state": 4, "use_mamba_kernels": False}
_LSH = {"lsh_attn_chunk_length": 4, "local_attn_chunk_length": 4, "num_hashes": 1, "num_buckets": 2}
_BOXES = {"max_2d_position_embeddings": 64}
OWN: dict[str, dict[str, Any]] = {
    "axk1": _LATENT,
    "axk2": {**_LATENT, "index_head_dim": 8, "index_n_heads": 2},
    "canine": {"max_position_embeddings": 64, "num_hash_buckets": 64},
    "ctrl": {"dff": 32},
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "esmc": {"num_key_value_heads": 4},
    "eurobert": {"classifier_pooling": "late"},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {"rotary_dim": 4},
    "jamba": {**_MAMBA, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2},
    "layoutlm": _BOXES,
    "layoutlmv3": {"hidden_size": 24, "input_size": 32, "coordinate_size": 4, "shape_size": 4},
    "lilt": {**_BOXES, "hidden_size": 24, "num_attention_heads": 2},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "markuplm": {
        "max_xpath_tag_unit_embeddings": 8,
        "max_xpath_subs_unit_embeddings": 8,
        "max_depth": 4,
        "tag_pad_id": 4,
        "subs_pad_id": 4,
    },
    "minicpm3": _LATENT,
    "mistral4": {**_LATENT, "head_dim": 8},
    "mt5": {"decoder_start_token_id": 0},
    "perceiver": {
        "num_latents": 8,
        "d_latents": 16,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
    },
    "qwen3_5_text": _LINEAR,
    "qwen3_next": _LINEAR,
    "reformer": {
        **_LSH,
        "axial_pos_shape": (8, 8),
        "axial_pos_embds_dim": (8, 8),
        "max_position_embeddings": 64,
        "attn_layers": ["lsh", "local"],
        "attention_head_size": 4,
        "feed_forward_size": 32,
        "is_decoder": False,
    },
    "roc_bert": {"enable_shape": False, "enable_pronunciation": False, "concat_input": False},
    "t5": {"decoder_start_token_id": 0},
    "umt5": {"decoder_start_token_id": 0},
    "zamba2": {
        **_MAMBA,
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "mamba", "hybrid"],
        "n_mamba_heads": 4,
        "mamba_headdim": 8,
        "mamba_ngroups": 1,
        "num_mem_blocks": 1,
        "chunk_size": 4,
    },
}

_PACKED = """
    albert bert camembert data2vec-text deberta-v2 distilbert electra ernie gemma llama mistral modernbert mpnet olmo2
    phi3 qwen2 qwen3 roberta roberta-prelayernorm smollm3 xlm-roberta xlm-roberta-xl
"""
_RIGHT = """
    arcee axk1 axk2 bart big_bird bigbird_pegasus biogpt bloom ctrl deberta deepseek_v2 deepseek_v3 diffllama doge esm
    esmc eurobert exaone4 falcon flaubert gemma2 gemma3_text glm glm4 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss
    gptj gte helium hunyuan_v1_dense hunyuan_v1_moe ibert jamba jetmoe jina_embeddings_v3 layoutlm layoutlmv3 lilt
    longformer luke markuplm mbart megatron-bert minicpm3 minimax ministral ministral3 mistral4 mixtral mobilebert
    modernbert-decoder mpt mra mt5 mvp nemotron nomic_bert olmo olmo3 openai-gpt opt perceiver persimmon phi phimoe
    plbart qwen2_moe qwen3_5_text qwen3_moe qwen3_next rembert roc_bert roformer seed_oss squeezebert stablelm
    starcoder2 t5 tapas umt5 xlm zamba2
"""
SERVED: dict[str, str] = {
    **dict.fromkeys(_PACKED.split(), "packed"),
    **dict.fromkeys(_RIGHT.split(), "right"),
    "xlnet": "left",
    **dict.fromkeys(UNPADDABLE, "cannot be padded"),
    "xmod": "cannot compute rows of token ids with a mask .*language unknown",
}
"""By the type of model: how its batches are made; else a part of the refusal."""
NOT_MADE = {
    "cohere_compass_text": "its configuration knows no small rotary table",
    **dict.fromkeys(("gemma3", "modernvbert", "qwen3_5", "t5gemma2", "ultravbert"), "it reads images too"),
    "layoutlmv2": "it needs detectron2",
    "t5gemma": "its parts have configurations of their own",
    "ultrabert": "its configuration is not small",
    "zamba": "its shared layers need more layers than two",
}
"""Types of which the test makes no small model. They are asked like all others when they are loaded."""


def small(model_type: str, **more: Any) -> PreTrainedModel:
    """Return a two-layer classifier with random weights."""
    torch.manual_seed(0)
    known = AutoConfig.for_model(model_type).to_dict()
    settings = {name: value for name, value in SMALL.items() if name in known}
    tokens = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": 0, "num_labels": 2}
    config = AutoConfig.for_model(model_type, **(tokens | settings | OWN.get(model_type, {}) | more))
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    name_pad_token(model, PAD)
    return model


def rows(*lengths: int) -> TokenizedSplit:
    """Return rows of random tokens that begin and end as a tokenizer's do."""
    random = np.random.default_rng(0)
    ids = [[0, *random.integers(5, WORDS, size=length - 2).tolist(), END] for length in lengths]
    kept = ["input_ids", "labels"]
    return read_tokenized(
        [{"input_ids": row, "labels": 0} for row in ids], name="rows", accepted=kept, drop_others=True, pad_id=PAD
    )


def test_every_classifier_of_transformers_has_a_row() -> None:
    since_5_23 = {"ultravbert"}
    assert {*MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, *since_5_23} == SERVED.keys() | NOT_MADE.keys()
    assert SERVED.keys() & NOT_MADE.keys() == set()


@pytest.mark.parametrize("model_type", list(SERVED))
def test_a_type_of_model_is_served_as_its_row_says(model_type: str) -> None:
    model, split, wanted = small(model_type), rows(5, 9, 12, 17), SERVED[model_type]
    assert (why_not_packable(model) is None) == (wanted == "packed")
    if wanted in ("right", "left"):
        assert padding_side(model, split) == wanted
    elif wanted != "packed":
        with pytest.raises(ConfigError, match=f"'{model_type}' {wanted}.*another type, or train it in a script"):
            padding_side(model, split)


@pytest.mark.parametrize("model_type", list(UNPADDABLE))
def test_what_cannot_be_padded_is_refused_by_its_folder_alone(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ConfigError, match=f"{model_type}.*{re.escape(UNPADDABLE[model_type])}.*another type"):
        check_model_folder(str(tmp_path))


class MeanOfAll(nn.Module):
    """A head that averages all positions, padding too."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 2)

    def forward(self, hidden_SLD: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.out(hidden_SLD.mean(1))


def with_mean_head() -> PreTrainedModel:
    model = small("roberta")
    model.classifier = MeanOfAll()
    return model


def with_pad(token: int | None) -> PreTrainedModel:
    model = small("gpt2")
    model.config.pad_token_id = token
    return model


CASES: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "rows of one length need no padding": (with_mean_head, (7, 7, 7), "right"),
    "a head that averages padding": (with_mean_head, (5, 9), "'roberta' cannot be padded"),
    "two lengths that differ by one": (lambda: small("xlnet"), (8, 9), "left"),
    "relative positions": (lambda: small("bert", is_decoder=True), (5, 9), "right"),
    "a padding token that the head does not know": (lambda: with_pad(7), (5, 9, 30), "'gpt2' cannot be padded"),
    "no padding token": (lambda: with_pad(None), (5, 9), "Cannot handle batch sizes > 1"),
    "rows longer than the model's table": (lambda: small("gpt2"), (5, 90), "IndexError"),
    "bf16 weights": (lambda: small("gpt2").bfloat16(), (5, 9, 30), "right"),
    "bf16 weights, padded on the left": (lambda: small("xlnet").bfloat16(), (5, 9, 30), "left"),
    "training mode, with dropout": (lambda: small("bart").train(), (5, 9, 30), "right"),
}


@pytest.mark.parametrize(("made", "lengths", "wanted"), list(CASES.values()), ids=list(CASES))
def test_the_side_is_asked_of_the_model_itself(made: Any, lengths: tuple[int, ...], wanted: str) -> None:
    model = made()
    modes = [module.training for module in model.modules()]
    if wanted in ("right", "left"):
        assert padding_side(model, rows(*lengths)) == wanted
    else:
        with pytest.raises(ConfigError, match=wanted):
            padding_side(model, rows(*lengths))
    assert [module.training for module in model.modules()] == modes


def test_padding_on_the_left_keeps_tokens_types_and_mask() -> None:
    ragged = rows(2, 4).gather(np.array([0, 1]))._replace(first_lengths=np.array([1, 2], dtype=np.int32))
    right, left = (pad(ragged, with_token_types=True, pad_id=PAD, side=side) for side in ("right", "left"))
    for batch, mask in ((right, [1, 1, 0, 0]), (left, [0, 0, 1, 1])):
        assert batch.attention_mask_SL.tolist() == [mask, [1, 1, 1, 1]]
        assert batch.input_ids_SL[batch.attention_mask_SL.bool()].tolist() == ragged.tokens.tolist()
        assert batch.token_type_ids_SL is not None
        assert batch.token_type_ids_SL[batch.attention_mask_SL.bool()].tolist() == [0, 1, 0, 0, 1, 1]
        assert batch.input_ids_SL[~batch.attention_mask_SL.bool()].tolist() == [PAD, PAD]
