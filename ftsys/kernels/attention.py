"""Attention within each sequence of a packed batch, and the choice of its kernel.

All kernels take `query`, `key`, `value` of shape (T, H, K), any floating dtype, and return (T, H, K): softmax over the
keys of the same sequence of `scale * q.k`, then dropout on the probabilities at the rate given (0 turns it off).
"""

from collections.abc import Callable

import torch

from ftsys.errors import ConfigError
from ftsys.kernels.layout import PackedLayout, pad_rows, unpad_rows

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, PackedLayout, float, float], torch.Tensor]


def reference_attention(
    query_THK: torch.Tensor,
    key_THK: torch.Tensor,
    value_THK: torch.Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: float,
) -> torch.Tensor:
    """The slow truth: one sequence after another, no padding anywhere."""
    outputs = []
    for start, end in zip(layout.cu_seqlens[:-1].tolist(), layout.cu_seqlens[1:].tolist(), strict=True):
        scores_HLL = torch.einsum("qhk,lhk->hql", query_THK[start:end], key_THK[start:end]) * scale
        weights_HLL = torch.nn.functional.dropout(scores_HLL.softmax(-1), dropout, training=dropout > 0)
        outputs.append(torch.einsum("hql,lhk->qhk", weights_HLL, value_THK[start:end]))
    return torch.cat(outputs)


def padded_attention(
    query_THK: torch.Tensor,
    key_THK: torch.Tensor,
    value_THK: torch.Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: float,
) -> torch.Tensor:
    """Plain matrix products on rows padded for attention alone; everything outside attention stays packed.

    On CPU this beats torch's fused attention, whose backward is slow there and which dropout takes off its fast path.
    """
    tokens, heads, head_size = query_THK.shape

    def by_head(rows_THK: torch.Tensor) -> torch.Tensor:
        padded_SLD = pad_rows(rows_THK.reshape(tokens, heads * head_size), layout)
        return padded_SLD.view(layout.sequences, layout.max_seqlen, heads, head_size).transpose(1, 2)

    scores_SHLL = by_head(query_THK * scale) @ by_head(key_THK).transpose(2, 3)
    if not layout.is_rectangular:
        scores_SHLL = scores_SHLL + layout.bias_S11L(scores_SHLL.dtype)
    weights_SHLL = torch.nn.functional.dropout(scores_SHLL.softmax(-1), dropout, training=dropout > 0)
    output_SHLK = weights_SHLL.to(value_THK.dtype) @ by_head(value_THK)
    rows_TD = unpad_rows(output_SHLK.transpose(1, 2).flatten(2), layout)
    return rows_TD.view(tokens, heads, head_size)


KERNELS: dict[str, Attention] = {"reference": reference_attention, "padded": padded_attention}


def choose_kernel(demanded: str) -> str:
    """The kernel's name: `demanded`, or for "auto" the only fast one there is so far.

    Raises:
        ConfigError: `demanded` names a kernel that does not exist.
    """
    if demanded == "auto":
        return "padded"
    if demanded not in KERNELS:
        raise ConfigError(f"engine.kernels={demanded!r} is not a kernel. Use 'auto' or one of {sorted(KERNELS)}.")
    return demanded
