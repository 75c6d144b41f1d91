"""The fast CPU attention: sequences of like lengths padded together, few passes over the scores, backward by hand.

Compared with the padded kernel: padding to the longest of a group, not of the batch (attention's work grows with the
square); no search for each row's largest score where no score can overflow; masks made again in the backward pass; and
the softmax's denominator applied to the outputs, which are smaller than the probabilities.

Formulas, with E = exp(scores), r its row sums, M the dropout mask (0 or 1 / (1 - rate)), * elementwise:
    O = ((E * M) V) / r          D = rowsum(dO * O)          dV = (E * M)^T (dO / r)
    dS = E * (((dO / r) V^T) * M - D / r)         dQ = dS K         dK = dS^T Q
The row sum D is FlashAttention's (Dao et al., 2022, appendix B): it spares a pass over the probabilities.
"""

from typing import TYPE_CHECKING, Any

import torch

from ftsys.kernels.dropout import AttentionDropout, scaled_mask
from ftsys.kernels.length_groups import Group

if TYPE_CHECKING:
    from ftsys.kernels.layout import PackedLayout


LARGEST_EXPONENT = 60.0
"""exp of it is far from overflow in every dtype used here but float16, for which the row maxima are always taken."""

SMALLEST_SUM = 1e-20


def grouped_attention(
    query_THK: torch.Tensor,
    key_THK: torch.Tensor,
    value_THK: torch.Tensor,
    layout: "PackedLayout",
    scale: float,
    dropout: AttentionDropout,
) -> torch.Tensor:
    """softmax(scale * q.k) v within each sequence of `layout`; all tensors (T, H, K), any floating dtype."""
    keys_TH = dropout.keys_TH(query_THK.shape[1])
    output: torch.Tensor = _Grouped.apply(query_THK, key_THK, value_THK, layout.groups, scale, keys_TH, dropout)
    return output


class _Grouped(torch.autograd.Function):
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
            outputs = (weights @ value).div_(sums.to(weights.dtype) if weights.dtype == sums.dtype else sums)
            _unpad_into(output_THK, outputs, group)
            saved += [query, key, value, exps, sums]
        ctx.save_for_backward(output_THK, keys_TH, *saved)
        ctx.groups, ctx.scale, ctx.dropout = groups, scale, dropout
        return output_THK

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        output_THK, keys_TH, *saved = ctx.saved_tensors
        gradient_THK = gradients[0]
        # The row sums of dO * O, in float32 where the tensors hold less.
        products = gradient_THK.to(_sum_dtype(output_THK.dtype)) * output_THK
        sums_TH1 = products.sum(-1, keepdim=True)
        d_query, d_key, d_value = (torch.empty_like(output_THK) for _ in range(3))
        for index, group in enumerate(ctx.groups):
            query, key, value, exps, sums = saved[5 * index : 5 * index + 5]
            mask = _mask(keys_TH, group, ctx.dropout, exps.dtype)
            share = (_padded(gradient_THK, group, zeros=True) / sums).to(exps.dtype)
            rest = (_padded(sums_TH1, group, zeros=True) / sums).to(exps.dtype)
            scores = share @ value.transpose(2, 3)
            scores = (scores if mask is None else scores.mul_(mask)).sub_(rest).mul_(exps)
            weights = exps if mask is None else mask.mul_(exps)
            _unpad_into(d_value, weights.transpose(2, 3) @ share, group)
            _unpad_into(d_query, (scores @ key).mul_(ctx.scale), group)
            _unpad_into(d_key, scores.transpose(2, 3) @ query, group)
        return d_query, d_key, d_value, None, None, None, None


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize == 2 else dtype


def _padded(rows_THK: torch.Tensor, group: Group, zeros: bool = False) -> torch.Tensor:
    """(T, H, K) -> (S, H, L, K), contiguous. Padding repeats a token, or is zero where a sum goes over it."""
    _, heads, size = rows_THK.shape
    rows = rows_THK.reshape(len(rows_THK), heads * size).index_select(0, group.tokens_R)
    if zeros and group.bias_S11L is not None:
        real = torch.zeros(len(rows), 1, dtype=rows.dtype, device=rows.device).index_fill_(0, group.real_rows, 1)
        rows *= real
    return rows.view(group.sequences, group.longest, heads, size).transpose(1, 2).contiguous()


def _unpad_into(rows_THK: torch.Tensor, padded_SHLK: torch.Tensor, group: Group) -> None:
    """Put the group's real rows where they belong."""
    rows = padded_SHLK.transpose(1, 2).reshape(-1, *rows_THK.shape[1:])
    if group.bias_S11L is not None:
        rows = rows.index_select(0, group.real_rows)
    rows_THK.index_copy_(0, group.real_tokens, rows)


def _exponentials(scores: torch.Tensor, group: Group) -> tuple[torch.Tensor, torch.Tensor]:
    """exp of the scores, less each row's largest one only where that is needed, and its row sums (S, H, L, 1)."""
    if group.bias_S11L is not None:
        scores += group.bias_S11L.to(scores.dtype)
    if scores.dtype != torch.float16 and scores.max().item() < LARGEST_EXPONENT:
        exps = scores.exp()
        sums = exps.sum(-1, keepdim=True, dtype=_sum_dtype(exps.dtype))
        if sums.min().item() > SMALLEST_SUM:
            return exps, sums
    exps = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    return exps, exps.sum(-1, keepdim=True, dtype=_sum_dtype(exps.dtype))


def _mask(
    keys_TH: torch.Tensor | None, group: Group, dropout: AttentionDropout, dtype: torch.dtype
) -> torch.Tensor | None:
    if keys_TH is None:
        return None
    keys_RH = keys_TH.index_select(0, group.tokens_R)
    keys_SHL = keys_RH.view(group.sequences, group.longest, -1).transpose(1, 2).contiguous()
    return scaled_mask(keys_SHL, dropout.site, group.longest, dropout.rate, dtype)
