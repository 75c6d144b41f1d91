"""Groups sequences of similar length, so that padding each group costs little."""

from dataclasses import dataclass

import numpy as np
import torch

LENGTH_RATIO = 0.7
"""Lowest ratio of a group's shortest to its longest sequence; the group of up to SHORT tokens has none."""

SHORT = 24
"""Sequences of up to this many tokens form one group with any ratio, because their scores are few."""

STEP = 8
"""Padded lengths are multiples of STEP, because oneDNN prepares each new shape of a matrix product."""


@dataclass(frozen=True, eq=False)
class Group:
    """Holds sequences that are padded to `longest` tokens each. R = `sequences` * `longest` padded rows."""

    tokens_R: torch.Tensor
    """Packed token of each padded row, sequence by sequence, int64; padding repeats the last token."""
    real_rows: torch.Tensor
    """Indices of the padded rows that are tokens, int64."""
    real_tokens: torch.Tensor
    """Packed token of each of these rows, int64."""
    bias_S11L: torch.Tensor | None
    """Bias of the scores: minus infinity for keys that are padding; None without padding."""
    sequences: int
    longest: int


def length_groups(cu_seqlens: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Return (sequence indices, padded length) of each group, the longest sequences first."""
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
    """Return the groups of a packed batch with `cu_seqlens` int32 (S + 1,), on its device."""
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
