"""Attention within each sequence of a packed batch: what every kernel is, the slow truth, and plain matrix products.

All kernels take `query` (T, H, K), `key` and `value` (T, G, K), any floating dtype, and return (T, H, K): softmax over
the keys of the same sequence that `pattern` lets a query see, of `scale * q.k` and the pattern's relative terms, then
dropout on the probabilities. G divides H: query head h reads key head h // (H / G).
"""

from typing import Protocol

import torch
from torch import Tensor

from ftsys.kernels.dropout import NO_DROPOUT, AttentionDropout
from ftsys.kernels.layout import PackedLayout, pad_rows, unpad_rows
from ftsys.kernels.pattern import PLAIN, Pattern
from ftsys.kernels.relative import padded_relative_scores


class Attention(Protocol):
    """What every kernel is: a pure function of its arguments."""

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
        """Attention of all sequences; see the head of this file."""
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
    """The slow truth: one sequence after another, no padding anywhere, every term as its definition says."""
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
    """The relative terms of one sequence's scores, (H, Q, L), or a zero."""
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
    """Plain matrix products on rows padded for attention alone; everything outside attention stays packed.

    On CPU this beats torch's fused attention, whose backward is slow there and which dropout takes off its fast path.
    """
    heads, groups, head_size = query_THK.shape[1], key_TGK.shape[1], query_THK.shape[2]
    sequences, longest = layout.sequences, layout.max_seqlen
    query_SHLK, key_SGLK = _by_head(query_THK * scale, layout), _by_head(key_TGK, layout)
    # The queries that share a key head lie behind one another (R = H / G times L rows), so no key is ever repeated.
    scores_SGRL = query_SHLK.reshape(sequences, groups, -1, head_size) @ key_SGLK.transpose(2, 3)
    scores_SHLL = scores_SGRL.view(sequences, heads, longest, longest)
    if pattern.relative is not None:
        scores_SHLL = scores_SHLL + padded_relative_scores(query_SHLK, key_SGLK, pattern.relative, scale)
    bias = layout.score_bias(scores_SHLL.dtype, pattern)
    if bias is not None:
        scores_SHLL = scores_SHLL + bias
    keys_TH = dropout.keys_TH(heads)
    keys_SHL = None if keys_TH is None else pad_rows(keys_TH, layout).transpose(1, 2)
    weights_SHLL = dropout.of(scores_SHLL.softmax(-1), keys_SHL)
    weights_SGRL = weights_SHLL.to(value_TGK.dtype).view(sequences, groups, -1, longest)
    output_SHLK = (weights_SGRL @ _by_head(value_TGK, layout)).view(sequences, heads, longest, head_size)
    rows_TD = unpad_rows(output_SHLK.transpose(1, 2).flatten(2), layout)
    return rows_TD.view(-1, heads, head_size)


def _by_head(rows_THK: Tensor, layout: PackedLayout) -> Tensor:
    """Packed (T, H, K) as padded (S, H, L, K), a view of (S, L, H, K)."""
    padded_SLD = pad_rows(rows_THK.reshape(rows_THK.shape[0], -1), layout)
    return padded_SLD.unflatten(2, rows_THK.shape[1:]).transpose(1, 2)
