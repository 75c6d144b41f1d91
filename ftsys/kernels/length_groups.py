"""Groups sequences of like lengths, so that a group can be padded at little cost."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    pass


LENGTH_RATIO = 0.7
"""A group's shortest sequence is no shorter than this share of its longest one, but for the shortest group."""


SHORT = 24
"""Sequences up to this many tokens share a group whatever their ratio: their scores are few."""


STEP = 8
"""Padded lengths are multiples of it: each new shape of a matrix product costs its library a preparation."""


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences that are padded together: `longest` tokens each."""

    tokens_R: torch.Tensor
    """For each padded row, sequence by sequence, the packed token that it reads, int64; padding reads the last one."""
    real_rows: torch.Tensor
    """Padded rows that hold a token, int64."""
    real_tokens: torch.Tensor
    """The packed tokens that they hold, int64."""
    bias_S11L: torch.Tensor | None
    """Added to scores: minus infinity for padding keys; None where there are none."""
    sequences: int
    longest: int


def length_groups(cu_seqlens: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Sequences by group, and the length that each group is padded to; the longest sequences first."""
    lengths = np.diff(cu_seqlens)
    order, groups, start = np.argsort(-lengths, kind="stable"), [], 0
    while start < len(order):
        longest = int(lengths[order[start]])
        limit = 0 if longest <= SHORT else longest * LENGTH_RATIO
        end = start + int((lengths[order[start:]] >= limit).sum())
        groups.append((order[start:end], -(-longest // STEP) * STEP))
        start = end
    return groups


def make_groups(cu_seqlens: torch.Tensor) -> list[Group]:
    """The groups of a packed batch with `cu_seqlens` int32 (S+1,), on its device."""
    bounds, device = cu_seqlens.cpu().numpy().astype(np.int64), cu_seqlens.device
    return [_group(bounds, members, longest, device) for members, longest in length_groups(bounds)]


def _group(bounds: np.ndarray, members: np.ndarray, longest: int, device: torch.device) -> Group:
    starts_S1, lengths_S1 = bounds[members, None], np.diff(bounds)[members, None]
    places_L = np.arange(longest)
    real_SL = places_L < lengths_S1
    tokens_SL = starts_S1 + np.minimum(places_L, lengths_S1 - 1)
    bias = None
    if not real_SL.all():
        bias = torch.from_numpy(np.where(real_SL, 0.0, -np.inf))[:, None, None, :].to(device)
    real_rows = np.flatnonzero(real_SL)
    parts = (tokens_SL.ravel(), real_rows, tokens_SL.ravel()[real_rows])
    tokens_R, rows, tokens = (torch.from_numpy(part).to(device) for part in parts)
    return Group(tokens_R, rows, tokens, bias, len(members), longest)
