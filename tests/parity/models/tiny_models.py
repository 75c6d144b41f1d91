"""Builds tiny models of every packed family, and computes one batch by the stock model and by the packed view."""

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
    # Large enough that attention is far from uniform, so that each term of a score has an effect.
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
    """Prevent transformers from computing norms, rotary angles and softmax in float32 for a float64 model.

    Agreement to 1e-9 is possible only if neither side rounds an intermediate result to float32.
    """
    double = torch.float64
    with (
        patch.object(torch, "float32", double),
        patch.object(torch, "float", double),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def small_model(variant: str, labels: int, problem: str | None = None) -> PreTrainedModel:
    """Return a two-layer model of the variant in float64, with its default dropout."""
    torch.manual_seed(0)
    model_type, own = VARIANTS[variant]
    known = AutoConfig.for_model(model_type).to_dict()
    settings = {key: value for key, value in SMALL.items() if key in known or key == "pad_token_id"}
    config = AutoConfig.for_model(model_type, num_labels=labels, problem_type=problem, **(settings | own))
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).double()
    return model


def longest_row(variant: str) -> int:
    """Return the number of positions of the model."""
    return POSITIONS - PAD - 1 if variant in COUNTS_FROM_PAD else POSITIONS


def sequences(lengths: list[int]) -> list[torch.Tensor]:
    """Return rows of random tokens without the padding token."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, 60, (length,), generator=generator) for length in lengths]


def switch_dropout_off(model: PreTrainedModel) -> None:
    """Set all dropout rates to 0; the model stays in training mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def stock_model(variant: str, labels: int, problem: str | None = None) -> PreTrainedModel:
    """Return the reference: transformers' eager attention, in training mode, without dropout."""
    model = small_model(variant, labels, problem)
    model.set_attn_implementation("eager")
    switch_dropout_off(model)
    return model.train()


def packed_model(stock: PreTrainedModel, variant: str) -> tuple[PreTrainedModel, PackedView]:
    """Return the same model with a packed view."""
    model = small_model(variant, stock.config.num_labels, stock.config.problem_type)
    model.load_state_dict(stock.state_dict())
    switch_dropout_off(model)
    return model.train(), PackedView(model)


def padded_inputs(model: PreTrainedModel, rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the stock padded batch; second halves have token type 1 if the model has types."""
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
    """Return the same rows as the view's inputs."""
    lengths = [len(row) for row in rows]
    types = torch.cat([(torch.arange(length) >= length // 2).long() for length in lengths])
    cumulative = torch.tensor(list(itertools.accumulate(lengths, initial=0)), dtype=torch.int32)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return view.inputs(torch.cat(rows), positions, types, cumulative, max(lengths))


def padded_logits(model: PreTrainedModel, rows: list[torch.Tensor]) -> torch.Tensor:
    """Return the logits (S, C) of the padded batch."""
    return model(**padded_inputs(model, rows)).logits


def packed_logits(model: PreTrainedModel, view: PackedView, rows: list[torch.Tensor]) -> torch.Tensor:
    """Return the logits (S, C) of the packed batch."""
    return model(**packed_inputs(view, rows)).logits
