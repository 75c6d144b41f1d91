"""Defines attention within each sequence of a packed batch, with a slow reference and a kernel of matrix products.

All kernels take `query` (T, H, K) and `key` and `value` (T, G, K), of any floating dtype, and return (T, H, K). The
scores of a query are `scale * q.k` plus the relative terms of `pattern`, over the keys of its own sequence that
`pattern` does not hide. The probabilities are the softmax of the scores, after dropout. G divides H: query head h uses
key head h // (H / G) (grouped-query attention; Ainslie et al., 2023).
"""

from typing import Protocol

import torch
from torch import Tensor

from ftsys.kernels.dropout import NO_DROPOUT, AttentionDropout, Windows
from ftsys.kernels.layout import PackedLayout, pad_rows, unpad_rows
from ftsys.kernels.pattern import PLAIN, Pattern
from ftsys.kernels.relative import padded_relative_scores


class Attention(Protocol):
    """Describes the signature of all attention kernels, which are pure functions."""

    def __call__(
        self,
        query_THK: Tensor,
        key_TGK: Tensor,
        value_TGK: Tensor,
        layout: PackedLayout,
        scale: float,
        dropout: AttentionDropout = NO_DROPOUT,
        pattern: Pattern = PLAIN,
    ) -> Tensor:
        """Return the attention output of all sequences, (T, H, K); see the module's docstring."""
        ...


def reference_attention(
    query_THK: Tensor,
    key_TGK: Tensor,
    value_TGK: Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout = NO_DROPOUT,
    pattern: Pattern = PLAIN,
) -> Tensor:
    """Compute attention for one sequence after another, without padding, each term by its definition: the reference."""
    group = query_THK.shape[1] // key_TGK.shape[1]
    keys_TH = dropout.keys_TH(query_THK.shape[1])
    key_THK, value_THK = (states.repeat_interleave(group, 1) for states in (key_TGK, value_TGK))
    outputs = []
    for start, end in zip(layout.cu_seqlens[:-1].tolist(), layout.cu_seqlens[1:].tolist(), strict=True):
        query_QHK, key_LHK = query_THK[start:end], key_THK[start:end]
        scores_HQL = torch.einsum("qhk,lhk->hql", query_QHK, key_LHK) * scale
        scores_HQL = scores_HQL + _reference_relative(query_QHK, key_LHK, layout.max_seqlen, scale, pattern)
        hidden_QL = pattern.hidden_LL(end - start, query_THK.device)
        if hidden_QL is not None:
            scores_HQL = scores_HQL.masked_fill(hidden_QL, -torch.inf)
        keys_HQ = None if keys_TH is None else keys_TH[start:end].T
        weights_HQL = dropout.of(scores_HQL.softmax(-1), keys_HQ)
        outputs.append(torch.einsum("hql,lhk->qhk", weights_HQL, value_THK[start:end]))
    return torch.cat(outputs)


def _reference_relative(query_QHK: Tensor, key_LHK: Tensor, longest: int, scale: float, pattern: Pattern) -> Tensor:
    """Return the relative terms of one sequence's scores, (H, Q, L), or a zero."""
    total, terms = query_QHK.new_zeros(()), pattern.relative
    if terms is None:
        return total
    places = torch.arange(len(query_QHK), device=query_QHK.device)
    offset_QL = places[:, None] - places + longest - 1
    if terms.bias_HO is not None:
        total = total + terms.bias_HO[:, offset_QL]
    if terms.keys_HOK is not None:
        total = total + torch.einsum("qhk,hqlk->hql", query_QHK, terms.keys_HOK[:, offset_QL]) * scale
    if terms.queries_HOK is not None:
        total = total + torch.einsum("hqlk,lhk->hql", terms.queries_HOK[:, offset_QL], key_LHK) * scale
    return total


def padded_attention(
    query_THK: Tensor,
    key_TGK: Tensor,
    value_TGK: Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout = NO_DROPOUT,
    pattern: Pattern = PLAIN,
) -> Tensor:
    """Compute attention by matrix products on rows that are padded to (S, L, ...) for this function only.

    On CPU this is faster than torch's fused attention, whose backward pass is slow there, and which uses a slow path if
    there is dropout.
    """
    heads, groups, head_size = query_THK.shape[1], key_TGK.shape[1], query_THK.shape[2]
    sequences, longest = layout.sequences, layout.max_seqlen
    query_SHLK, key_SGLK = _by_head(query_THK * scale, layout), _by_head(key_TGK, layout)
    # The queries of one key head are consecutive rows (R = H / G * L of them), so keys need not be repeated.
    scores_SGRL = query_SHLK.reshape(sequences, groups, -1, head_size) @ key_SGLK.transpose(2, 3)
    scores_SHLL = scores_SGRL.view(sequences, heads, longest, longest)
    if pattern.relative is not None:
        scores_SHLL = scores_SHLL + padded_relative_scores(query_SHLK, key_SGLK, pattern.relative, scale)
    bias = layout.score_bias(scores_SHLL.dtype, pattern)
    if bias is not None:
        scores_SHLL = scores_SHLL + bias
    weights_SHLL = dropout.by_windows(scores_SHLL.softmax(-1), _padded_windows(dropout.windows_TH(heads), layout))
    weights_SGRL = weights_SHLL.to(value_TGK.dtype).view(sequences, groups, -1, longest)
    output_SHLK = (weights_SGRL @ _by_head(value_TGK, layout)).view(sequences, heads, longest, head_size)
    rows_TD = unpad_rows(output_SHLK.transpose(1, 2).flatten(2), layout)
    return rows_TD.view(-1, heads, head_size)


def _padded_windows(starts: Windows | None, layout: PackedLayout) -> Windows | None:
    """Pad the windows of packed tokens (T, H) to (S, H, L)."""
    if starts is None:
        return None
    both_TH = pad_rows(torch.cat(starts, 1), layout).transpose(1, 2)
    first, second = both_TH.chunk(2, 1)
    return first, second


def _by_head(rows_THK: Tensor, layout: PackedLayout) -> Tensor:
    """Pad packed (T, H, K) to (S, H, L, K), a view of (S, L, H, K)."""
    padded_SLD = pad_rows(rows_THK.reshape(rows_THK.shape[0], -1), layout)
    return padded_SLD.unflatten(2, rows_THK.shape[1:]).transpose(1, 2)
