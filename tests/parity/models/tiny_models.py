"""Tiny models of every packed family, and one batch of rows as the stock stack and as the packed view compute it."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from ftsys.models.packed import PackedView

PAD = 1
POSITIONS = 32
SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": POSITIONS,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 32,
    "pad_token_id": PAD,
    # Wide enough that attention is far from uniform and every term of a score is felt.
    "initializer_range": 0.3,
}
_DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
# Buckets small enough that distances beyond 4 share them, as distances beyond 128 do in the published models.
_V3 = {**_DEBERTA, "share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0}
_GROUPED = {"num_key_value_heads": 2, "tie_word_embeddings": False}
_SLIDING = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "layer_types": None}

# Each variant is a model type and what its configuration has beside `SMALL`.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {"type_vocab_size": 2}),
    "electra": ("electra", {"type_vocab_size": 2}),
    "albert": ("albert", {"type_vocab_size": 2}),
    "ernie": ("ernie", {"type_vocab_size": 2}),
    "distilbert": ("distilbert", {}),
    "roberta": ("roberta", {}),
    "xlm-roberta": ("xlm-roberta", {}),
    "camembert": ("camembert", {}),
    "roberta-prelayernorm": ("roberta-prelayernorm", {}),
    "xlm-roberta-xl": ("xlm-roberta-xl", {}),
    "data2vec-text": ("data2vec-text", {}),
    "mpnet": ("mpnet", {}),
    "deberta-v3": ("deberta-v2", _V3),
    "deberta-v2": ("deberta-v2", {**_DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu", "type_vocab_size": 2}),
    "deberta-absolute": ("deberta-v2", {"relative_attention": False, "type_vocab_size": 2}),
    "modernbert-cls": ("modernbert", {"local_attention": 8, "classifier_pooling": "cls"}),
    "modernbert-mean": ("modernbert", {"local_attention": 8, "classifier_pooling": "mean"}),
    "eurobert-bos": ("eurobert", {**_GROUPED, "classifier_pooling": "bos"}),
    "eurobert-mean": ("eurobert", {**_GROUPED, "classifier_pooling": "mean"}),
    "llama": ("llama", _GROUPED),
    "qwen2": ("qwen2", _GROUPED),
    "qwen2-sliding": ("qwen2", {**_GROUPED, **_SLIDING}),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 8}),
    "mistral": ("mistral", {**_GROUPED, "sliding_window": 5}),
    "gemma": ("gemma", {**_GROUPED, "head_dim": 8}),
    "olmo2": ("olmo2", _GROUPED),
    "phi3": ("phi3", _GROUPED),
    "smollm3": ("smollm3", _GROUPED),
}
COUNTS_FROM_PAD = {
    *("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "xlm-roberta-xl", "data2vec-text", "mpnet")
}


@contextmanager
def all_in_float64() -> Iterator[None]:
    """transformers computes norms, rotary angles and softmax in float32 whatever the model's type: here it does not.

    A parity of 1e-9 can be asked for only where nothing in between is rounded to float32, on either side.
    """
    double = torch.float64
    with (
        patch.object(torch, "float32", double),
        patch.object(torch, "float", double),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def small_model(variant: str, labels: int, problem: str | None = None) -> PreTrainedModel:
    """A two-layer model of the variant in float64, dropout at its defaults."""
    torch.manual_seed(0)
    model_type, own = VARIANTS[variant]
    known = AutoConfig.for_model(model_type).to_dict()
    settings = {key: value for key, value in SMALL.items() if key in known or key == "pad_token_id"}
    config = AutoConfig.for_model(model_type, num_labels=labels, problem_type=problem, **(settings | own))
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).double()
    return model


def longest_row(variant: str) -> int:
    """As many tokens as the model has positions for."""
    return POSITIONS - PAD - 1 if variant in COUNTS_FROM_PAD else POSITIONS


def sequences(lengths: list[int]) -> list[torch.Tensor]:
    """Rows of random tokens, none of them the padding token."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, 60, (length,), generator=generator) for length in lengths]


def switch_dropout_off(model: PreTrainedModel) -> None:
    """Set the rates to nothing; the model stays in training mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def stock_model(variant: str, labels: int, problem: str | None = None) -> PreTrainedModel:
    """The reference: transformers' own eager attention, in training mode, without dropout."""
    model = small_model(variant, labels, problem)
    model.set_attn_implementation("eager")
    switch_dropout_off(model)
    return model.train()


def packed_model(stock: PreTrainedModel, variant: str) -> tuple[PreTrainedModel, PackedView]:
    """The same model, with a packed view."""
    model = small_model(variant, stock.config.num_labels, stock.config.problem_type)
    model.load_state_dict(stock.state_dict())
    switch_dropout_off(model)
    return model.train(), PackedView(model)


def padded_inputs(model: PreTrainedModel, rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The stock padded batch; second halves are of token type 1 where the model has types."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), PAD)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
        types[index, len(row) // 2 : len(row)] = 1
    extra = {"token_type_ids": types} if getattr(model.config, "type_vocab_size", 0) > 1 else {}
    return {"input_ids": ids, "attention_mask": mask, **extra}


def packed_inputs(view: PackedView, rows: list[torch.Tensor]) -> dict[str, Any]:
    """The same rows as the view feeds them."""
    lengths = [len(row) for row in rows]
    types = torch.cat([(torch.arange(length) >= length // 2).long() for length in lengths])
    cumulative = torch.tensor(list(itertools.accumulate(lengths, initial=0)), dtype=torch.int32)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return view.inputs(torch.cat(rows), positions, types, cumulative, max(lengths))


def padded_logits(model: PreTrainedModel, rows: list[torch.Tensor]) -> torch.Tensor:
    """(S, C) of the padded batch."""
    return model(**padded_inputs(model, rows)).logits


def packed_logits(model: PreTrainedModel, view: PackedView, rows: list[torch.Tensor]) -> torch.Tensor:
    """(S, C) of the packed batch."""
    return model(**packed_inputs(view, rows)).logits
