"""From rows of a store to the tensors of one micro-batch: packed without padding, or padded for models that need it.

Shape suffixes: T tokens of the batch, S sequences, L longest sequence.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from ftsys.data.store.reader import Ragged

NO_EXAMPLE = -1
"""The example id of a filler sequence: it is computed so that all ranks join a collective, and counts for nothing."""

FILL_SHARE = 32
"""Fillers add at most this part of a packed batch's tokens."""


@dataclass(frozen=True)
class PackedBatch:
    """A flat batch. Integers are int64 but for `cu_seqlens`, int32 (S+1,); labels int64 or float64 (S,).

    Some of its sequences may be fillers, which stand for no example.
    """

    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    token_type_ids_T: torch.Tensor | None
    cu_seqlens: torch.Tensor
    max_seqlen: int
    labels_S: torch.Tensor
    example_ids_S: torch.Tensor
    is_static: bool = False
    """Whether its sizes are among those of `data.shapes`, so that its passes may be recorded and replayed."""

    @property
    def computed_tokens(self) -> int:
        """Tokens the device computes: the real ones and the fillers'."""
        return self.input_ids_T.numel()


@dataclass(frozen=True)
class PaddedBatch:
    """A rectangular batch, all int64 but for the labels of a regression (float64)."""

    input_ids_SL: torch.Tensor
    attention_mask_SL: torch.Tensor
    token_type_ids_SL: torch.Tensor | None
    labels_S: torch.Tensor
    example_ids_S: torch.Tensor

    @property
    def computed_tokens(self) -> int:
        """Tokens the device computes, padding included."""
        return self.input_ids_SL.numel()


Batch = PackedBatch | PaddedBatch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`; the copy overlaps with computation where the memory is pinned."""
    if device.type == "cpu":
        return batch
    moved = {
        field.name: value.pin_memory().to(device, non_blocking=True)
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor)
    }
    return replace(batch, **moved)


def pack(rows: Ragged, with_token_types: bool) -> PackedBatch:
    """Lay the rows' tokens one behind the other. Token types are 0 up to the end of the first segment, then 1."""
    types_T = None
    if with_token_types:
        second_T = rows.positions >= rows.first_lengths.repeat(rows.lengths)
        types_T = torch.from_numpy(second_T.astype(np.int64))
    return PackedBatch(
        torch.from_numpy(rows.tokens.astype(np.int64)),
        torch.from_numpy(rows.positions),
        types_T,
        torch.from_numpy(rows.cu_seqlens),
        int(rows.lengths.max()),
        torch.from_numpy(rows.labels),
        torch.from_numpy(rows.example_ids),
    )


def pad(rows: Ragged, with_token_types: bool, pad_id: int) -> PaddedBatch:
    """The stock layout: rows filled up on the right with `pad_id` to the longest of them."""
    mask_SL = np.arange(int(rows.lengths.max())) < rows.lengths[:, None]
    ids_SL = np.full(mask_SL.shape, pad_id, dtype=np.int64)
    ids_SL[mask_SL] = rows.tokens
    types_SL = None
    if with_token_types:
        second_SL = mask_SL & (np.arange(mask_SL.shape[1]) >= rows.first_lengths[:, None])
        types_SL = torch.from_numpy(second_SL.astype(np.int64))
    return PaddedBatch(
        torch.from_numpy(ids_SL),
        torch.from_numpy(mask_SL.astype(np.int64)),
        types_SL,
        torch.from_numpy(rows.labels),
        torch.from_numpy(rows.example_ids),
    )


def filled_up(rows: Ragged, token: int) -> Ragged:
    """`rows` and, behind them, filler sequences of `token`, so that few different numbers of tokens occur.

    Libraries of matrix products prepare each new shape anew, which takes longer than computing a few tokens more: the
    count is rounded up to a multiple of the largest power of two within a 32nd of it, 1% more on average.
    """
    tokens = len(rows.tokens)
    return filled_to(rows, token, tokens + -tokens % (1 << max(0, (tokens // FILL_SHARE).bit_length() - 1)))


def filled_to(rows: Ragged, token: int, tokens: int, longest: int | None = None) -> Ragged:
    """`rows` and filler sequences of `token` up to `tokens` tokens, none of them over `longest`, the longest row."""
    own, longest = len(rows.tokens), longest or int(rows.lengths.max())
    missing = tokens - own
    if not missing:
        return rows
    lengths = np.array([min(longest, missing - start) for start in range(0, missing, longest)], dtype=np.int32)
    fillers = len(lengths)
    return Ragged(
        tokens=np.concatenate([rows.tokens, np.full(missing, token, dtype=rows.tokens.dtype)]),
        lengths=np.concatenate([rows.lengths, lengths]),
        first_lengths=np.concatenate([rows.first_lengths, lengths]),
        labels=np.concatenate([rows.labels, np.zeros(fillers, dtype=rows.labels.dtype)]),
        example_ids=np.concatenate([rows.example_ids, np.full(fillers, NO_EXAMPLE)]),
        positions=np.concatenate([rows.positions, *(np.arange(length) for length in lengths)]),
        cu_seqlens=np.concatenate([rows.cu_seqlens, own + lengths.cumsum(dtype=np.int32)]),
    )


def filler_rows(token: int, label_dtype: np.dtype) -> Ragged:
    """One sequence of one token that stands for no example: what a rank without work computes."""
    return Ragged(
        tokens=np.array([token], dtype=np.uint32),
        lengths=np.ones(1, dtype=np.int32),
        first_lengths=np.ones(1, dtype=np.int32),
        labels=np.zeros(1, dtype=label_dtype),
        example_ids=np.array([NO_EXAMPLE]),
        positions=np.zeros(1, dtype=np.int64),
        cu_seqlens=np.array([0, 1], dtype=np.int32),
    )
