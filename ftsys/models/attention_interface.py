"""Provides the attention function that transformers calls in each layer of a packed model."""

from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import Pattern
from ftsys.kernels.select import KERNELS
from ftsys.models.dropout import attention_dropout

ATTENTION_NAME = "ftsys_packed"


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: PackedLayout | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention within each sequence of a packed batch, and None for the attention weights.

    `query` is (1, H, T, K); `key` and `value` are (1, G, T, K), where G divides H; any floating dtype. The result is
    (1, T, H, K). Without `packed` (a padded batch), it calls torch's attention with the mask of transformers.
    """
    if packed is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    query_THK, key_TGK, value_TGK = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    pattern = _pattern(getattr(module, "is_causal", False), sliding_window)
    dropped = attention_dropout(module, packed, dropout)
    output_THK = KERNELS[packed.kernel](query_THK, key_TGK, value_TGK, packed, scale, dropped, pattern)
    return output_THK[None], None


@lru_cache
def _pattern(causal: bool, window: int | None) -> Pattern:
    return Pattern(causal, window)


def register_attention() -> None:
    """Register `packed_attention` in transformers under ATTENTION_NAME; padded batches get the masks for "sdpa"."""
    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
