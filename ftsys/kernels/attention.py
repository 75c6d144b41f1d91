"""Attention within each sequence of a packed batch, and the choice of its kernel.

All kernels take `query` (T, H, K), `key` and `value` (T, G, K), any floating dtype, and return (T, H, K): softmax over
the keys of the same sequence that `pattern` lets a query see, of `scale * q.k` and the pattern's relative terms, then
dropout on the probabilities. G divides H: query head h reads key head h // (H / G).
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from ftsys.errors import ConfigError
from ftsys.kernels.dropout import NO_DROPOUT, AttentionDropout
from ftsys.kernels.grouped import grouped_attention
from ftsys.kernels.layout import PackedLayout, pad_rows, unpad_rows
from ftsys.kernels.native.attention import LANES, native_attention, takes
from ftsys.kernels.native.library import NATIVE, why_not_native
from ftsys.kernels.pattern import PLAIN, Pattern
from ftsys.kernels.relative import padded_relative_scores

TRITON = "triton"


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


@dataclass(frozen=True)
class _Fast:
    """A kernel for plain patterns and for the tensors that it takes; `otherwise` has the rest."""

    computes: Callable[[Tensor, Tensor, Tensor, PackedLayout, float, AttentionDropout], Tensor]
    takes: Callable[[Tensor, Tensor, Tensor], bool]
    otherwise: Attention

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
        states = (query_THK, key_TGK, value_TGK)
        if query_THK.shape == key_TGK.shape and _is_plain(layout, dropout, pattern) and self.takes(*states):
            return self.computes(*states, layout, scale, dropout)
        return self.otherwise(*states, layout, scale, dropout, pattern)


def _is_plain(layout: PackedLayout, dropout: AttentionDropout, pattern: Pattern) -> bool:
    """Whether all keys are seen by their content alone, and no dropout is drawn from torch's generator."""
    hides = pattern.hidden_LL(layout.max_seqlen, layout.cu_seqlens.device) is not None
    drawn = dropout.rate > 0 and dropout.keys_T is None
    return not (hides or drawn or pattern.relative is not None)


def _triton_takes(*states: Tensor) -> bool:
    if _why_not(TRITON, states[0].device.type):
        return False
    from ftsys.kernels import flash  # Triton comes with torch's CUDA build alone

    return flash.takes(*states)


def _triton(*told: Any) -> Tensor:
    from ftsys.kernels import flash

    return flash.flash_attention(*told)


_grouped = _Fast(grouped_attention, lambda *states: True, padded_attention)
KERNELS: dict[str, Attention] = {
    "reference": reference_attention,
    "padded": padded_attention,
    "grouped": _grouped,
    NATIVE: _Fast(native_attention, takes, _grouped),
    TRITON: _Fast(_triton, _triton_takes, padded_attention),
}


def choose_kernel(demanded: str, device: str = "cpu", head_size: int | None = None) -> str:
    """The kernel's name: `demanded`, or for "auto" the fast one of `device` ("cpu" or "cuda"), if it is to be had.

    Raises:
        ConfigError: `demanded` names a kernel that does not exist, that this machine cannot run, or that is not made
            for heads of `head_size`, where it is known.
    """
    if demanded == "auto":
        slow = "grouped" if device == "cpu" else "padded"
        return slow if why_not_fast(device) else _fast_of(device)
    if demanded not in KERNELS:
        raise ConfigError(f"engine.kernels={demanded!r} is not a kernel. Use 'auto' or one of {sorted(KERNELS)}.")
    reason = _why_not(demanded, device) or (head_size and _why_not_heads(demanded, head_size))
    if reason is not None:
        raise ConfigError(f"engine.kernels={demanded!r} cannot be had here: {reason}. Use 'auto'.")
    return demanded


def why_not_fast(device: str) -> str | None:
    """The reason why "auto" takes a slower kernel on `device`, or None."""
    return _why_not(_fast_of(device), device)


def _fast_of(device: str) -> str:
    return NATIVE if device == "cpu" else TRITON


def _why_not(name: str, device: str) -> str | None:
    if name == NATIVE:
        return why_not_native() if device == "cpu" else f"it runs on a CPU, not on {device}"
    if name == TRITON and device == "cpu":
        return "it runs on a GPU"
    if name == TRITON and not _has_triton():
        return "Triton is not installed"
    return None


def _why_not_heads(name: str, size: int) -> str | None:
    if name == NATIVE and size % LANES:
        return f"the model's heads have {size} elements, and it takes multiples of {LANES}"
    if name == TRITON:
        from ftsys.kernels.flash import SIZES

        return None if size in SIZES else f"the model's heads have {size} elements, and it takes {sorted(SIZES)}"
    return None


@cache
def _has_triton() -> bool:  # asked in every layer
    return importlib.util.find_spec("triton") is not None
