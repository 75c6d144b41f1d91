"""The attention function that transformers calls in each layer of a packed model."""

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
    """(1, H, T, K) in, keys and values with fewer heads where they are shared, (1, T, H, K) out.

    Without `packed`, torch's own attention with the mask that transformers made.
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
    """Make `packed_attention` known to transformers by its name; padded batches get the masks of torch's attention."""
    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
