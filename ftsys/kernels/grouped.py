"""Computes attention on CPU for groups of sequences of similar length, with few passes over the scores.

Differences from `padded_attention`: sequences are padded to the longest of a group, not of the batch (the work grows
with the square of the length); the maximum of a row is not computed if no score can overflow; masks are computed again
in the backward pass; the softmax's denominator divides the outputs, which are smaller than the probabilities. The
backward pass is written by hand.

Formulas, with E = exp(scores), r its row sums, M the dropout mask (0 or 1 / (1 - rate)), * elementwise:
    O = ((E * M) V) / r          D = rowsum(dO * O)          dV = (E * M)^T (dO / r)
    dS = E * (((dO / r) V^T) * M - D / r)         dQ = dS K         dK = dS^T Q
The factor of M is applied together with 1 / r, in whose dtype it is not rounded to 16 bits.
The row sum D comes from FlashAttention (Dao et al., 2022, appendix B); it avoids a pass over the probabilities.
"""

from typing import Any

import torch

from ftsys.kernels.dropout import AttentionDropout, kept_mask, site_offset, threshold, windows
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.length_groups import Group

LARGEST_EXPONENT = 60.0
"""Score up to which exp is far from overflow in all dtypes except float16, which always uses the row maxima."""

SMALLEST_SUM = 1e-20
"""Sum of exponentials of a row below which the row maxima are used, against underflow."""


def grouped_attention(
    query_THK: torch.Tensor,
    key_THK: torch.Tensor,
    value_THK: torch.Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout,
) -> torch.Tensor:
    """Return softmax(scale * q.k) v within each sequence of `layout`; all tensors (T, H, K), any floating dtype."""
    keys_TH = dropout.keys_TH(query_THK.shape[1])
    output: torch.Tensor = _Grouped.apply(query_THK, key_THK, value_THK, layout.groups, scale, keys_TH, dropout)
    return output


class _Grouped(torch.autograd.Function):
    """Computes the formulas of the module's docstring, group by group."""

    @staticmethod
    def forward(
        ctx: Any,
        query_THK: torch.Tensor,
        key_THK: torch.Tensor,
        value_THK: torch.Tensor,
        groups: list[Group],
        scale: float,
        keys_TH: torch.Tensor | None,
        dropout: AttentionDropout,
    ) -> torch.Tensor:
        output_THK = torch.empty_like(query_THK, memory_format=torch.contiguous_format)
        saved: list[torch.Tensor] = []
        for group in groups:
            query, key, value = (_padded(rows, group) for rows in (query_THK, key_THK, value_THK))
            query = query * scale
            exps, sums = _exponentials(query @ key.transpose(2, 3), group)
            mask = _mask(keys_TH, group, dropout, exps.dtype)
            weights = exps if mask is None else exps * mask
            outputs = (weights @ value).div_(_kept_sums(sums, dropout))
            _unpad_into(output_THK, outputs, group)
            saved += [query, key, value, exps, sums]
        ctx.save_for_backward(output_THK, keys_TH, *saved)
        ctx.groups, ctx.scale, ctx.dropout = groups, scale, dropout
        return output_THK

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        output_THK, keys_TH, *saved = ctx.saved_tensors
        gradient_THK = gradients[0]
        # The row sums of dO * O, in float32 for 16-bit tensors.
        products = gradient_THK.to(_sum_dtype(output_THK.dtype)) * output_THK
        sums_TH1 = products.sum(-1, keepdim=True)
        d_query, d_key, d_value = (torch.empty_like(output_THK) for _ in range(3))
        for index, group in enumerate(ctx.groups):
            query, key, value, exps, sums = saved[5 * index : 5 * index + 5]
            mask = _mask(keys_TH, group, ctx.dropout, exps.dtype)
            d_output = (_padded(gradient_THK, group, zeros=True) / _kept_sums(sums, ctx.dropout)).to(exps.dtype)
            row_sums = (_padded(sums_TH1, group, zeros=True) / sums).to(exps.dtype)
            scores = d_output @ value.transpose(2, 3)
            scores = (scores if mask is None else scores.mul_(mask)).sub_(row_sums).mul_(exps)
            weights = exps if mask is None else mask.mul_(exps)
            _unpad_into(d_value, weights.transpose(2, 3) @ d_output, group)
            _unpad_into(d_query, (scores @ key).mul_(ctx.scale), group)
            _unpad_into(d_key, scores.transpose(2, 3) @ query, group)
        return d_query, d_key, d_value, None, None, None, None


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize == 2 else dtype


def _padded(rows_THK: torch.Tensor, group: Group, zeros: bool = False) -> torch.Tensor:
    """Pad (T, H, K) to (S, H, L, K), contiguous. Padding repeats a token, or is zero if `zeros`, for sums over it."""
    _, heads, size = rows_THK.shape
    rows = rows_THK.reshape(len(rows_THK), heads * size).index_select(0, group.tokens_R)
    if zeros and group.bias_S11L is not None:
        real = torch.zeros(len(rows), 1, dtype=rows.dtype, device=rows.device).index_fill_(0, group.real_rows, 1)
        rows *= real
    return rows.view(group.sequences, group.longest, heads, size).transpose(1, 2).contiguous()


def _unpad_into(rows_THK: torch.Tensor, padded_SHLK: torch.Tensor, group: Group) -> None:
    """Write the group's real rows to their tokens in `rows_THK`."""
    rows = padded_SHLK.transpose(1, 2).reshape(-1, *rows_THK.shape[1:])
    if group.bias_S11L is not None:
        rows = rows.index_select(0, group.real_rows)
    rows_THK.index_copy_(0, group.real_tokens, rows)


def _exponentials(scores: torch.Tensor, group: Group) -> tuple[torch.Tensor, torch.Tensor]:
    """Return exp of the scores and its row sums (S, H, L, 1); subtract the row maxima only if needed."""
    if group.bias_S11L is not None:
        scores += group.bias_S11L.to(scores.dtype)
    if scores.dtype != torch.float16 and scores.max().item() < LARGEST_EXPONENT:
        exps = scores.exp()
        sums = exps.sum(-1, keepdim=True, dtype=_sum_dtype(exps.dtype))
        if sums.min().item() > SMALLEST_SUM:
            return exps, sums
    exps = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    return exps, exps.sum(-1, keepdim=True, dtype=_sum_dtype(exps.dtype))


def _kept_sums(sums: torch.Tensor, dropout: AttentionDropout) -> torch.Tensor:
    """Return the row sums less the share that is dropped: dividing by them scales what is kept, in their dtype."""
    return sums if dropout.rate == 0 else sums / threshold(dropout.rate)[1]


def _mask(
    keys_TH: torch.Tensor | None, group: Group, dropout: AttentionDropout, dtype: torch.dtype
) -> torch.Tensor | None:
    """Return 1 for kept probabilities and 0 for others, (S, H, L, L); None without dropout."""
    if keys_TH is None:
        return None
    keys_RH = keys_TH.index_select(0, group.tokens_R) + site_offset(dropout.site)
    keys_SHL = keys_RH.view(group.sequences, group.longest, -1).transpose(1, 2)
    return kept_mask(windows(keys_SHL), group.longest, dropout.rate).to(dtype)
