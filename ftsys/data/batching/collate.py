"""Collates rows into the tensors of one micro-batch: packed without padding, or padded for models that need it.

Shape suffixes: T tokens of the batch, S sequences, L longest sequence.
"""

from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import accumulate
from typing import TypeVar

import numpy as np
import torch

from ftsys.data.store.reader import Ragged

NO_EXAMPLE = -1
"""The example id of a filler sequence, which is computed but has no effect on losses, gradients or results."""

ALIGNMENT = 256
"""Bytes: each tensor of a batch starts at a multiple of it, as torch's allocator would place it on a GPU."""
FILL_DIVISOR = 32
"""Fillers add at most 1/32 to a packed batch's tokens."""


@dataclass(frozen=True)
class PackedBatch:
    """A flat batch. `cu_seqlens` is int32 (S+1,), all other integers are int64.

    `labels_S` is int64 or float64 (S,), or for a multi-label task float32 (S, C) of 1 and 0 (-1: unlabelled). Some of
    the sequences may be fillers, which belong to no example.
    """

    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    token_type_ids_T: torch.Tensor | None
    cu_seqlens: torch.Tensor
    max_seqlen: int
    labels_S: torch.Tensor
    example_ids_S: torch.Tensor
    is_static: bool = False
    """True for a batch with a size of `SizeBuckets`, whose forward and backward passes may be recorded and replayed."""

    @property
    def computed_tokens(self) -> int:
        """Tokens the device computes, fillers included."""
        return self.input_ids_T.numel()


@dataclass(frozen=True)
class PaddedBatch:
    """A rectangular batch. All tensors are int64, except labels that are floats as in a `PackedBatch`."""

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
AnyBatch = TypeVar("AnyBatch", bound=Batch)


def to_device(batch: AnyBatch, device: torch.device) -> AnyBatch:
    """Copy every tensor of the batch to `device` at once, from pinned memory.

    On a GPU the copy runs on a stream of its own: it is made while the device still computes the batch before.
    """
    if device.type == "cpu":
        return batch
    tensors = tensors_of(batch)
    ends = list(accumulate(_aligned(value.nbytes) for value in tensors.values()))
    places = dict(zip(tensors, [0, *ends], strict=False))
    staged = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=True)
    for name, value in tensors.items():
        _part(staged, places[name], value).copy_(value)
    arrived = _sent(staged, device)
    return replace(batch, **{name: _part(arrived, places[name], value) for name, value in tensors.items()})


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    """Return the tensors of `batch` by field name."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _part(flat: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    """Return the bytes of `flat` from `start` as a tensor with the dtype and shape of `like`."""
    return flat[start : start + like.nbytes].view(like.dtype).view(like.shape)


def _sent(staged: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type != "cuda":
        return staged.to(device, non_blocking=True)
    stream, computing = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        arrived = staged.to(device, non_blocking=True)
    computing.wait_stream(stream)
    arrived.record_stream(computing)  # else its memory could be reused before the kernels that read it have run
    return arrived


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def pack(rows: Ragged, with_token_types: bool) -> PackedBatch:
    """Concatenate the rows' tokens. Token types are 0 up to the end of the first segment, then 1."""
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
        _labels(rows),
        torch.from_numpy(rows.example_ids),
    )


def pad(rows: Ragged, with_token_types: bool, pad_id: int, side: str = "right") -> PaddedBatch:
    """Pad rows with `pad_id` to the longest of them, as a stock collator does, on the `side` "right" or "left"."""
    longest = int(rows.lengths.max())
    starts_S1 = (longest - rows.lengths if side == "left" else np.zeros_like(rows.lengths))[:, None]
    places_SL = np.arange(longest) - starts_S1
    mask_SL = (places_SL >= 0) & (places_SL < rows.lengths[:, None])
    ids_SL = np.full(mask_SL.shape, pad_id, dtype=np.int64)
    ids_SL[mask_SL] = rows.tokens
    types_SL = None
    if with_token_types:
        second_SL = mask_SL & (places_SL >= rows.first_lengths[:, None])
        types_SL = torch.from_numpy(second_SL.astype(np.int64))
    return PaddedBatch(
        torch.from_numpy(ids_SL),
        torch.from_numpy(mask_SL.astype(np.int64)),
        types_SL,
        _labels(rows),
        torch.from_numpy(rows.example_ids),
    )


def _labels(rows: Ragged) -> torch.Tensor:
    """Return the labels as a loss takes them: those of a multi-label task as floats."""
    return torch.from_numpy(rows.labels if rows.labels.ndim == 1 else rows.labels.astype(np.float32))


def filled_up(rows: Ragged, token: int) -> Ragged:
    """Append filler sequences of `token` to `rows`, so that only few different numbers of tokens occur.

    Libraries of matrix products prepare each new shape, which takes longer than computing a few more tokens. The count
    is rounded up to a multiple of the largest power of two that is at most 1/32 of it: 1% more on average.
    """
    tokens = len(rows.tokens)
    return filled_to(rows, token, tokens + -tokens % (1 << max(0, (tokens // FILL_DIVISOR).bit_length() - 1)))


def filled_to(rows: Ragged, token: int, tokens: int, longest: int | None = None) -> Ragged:
    """Append filler sequences of `token` up to `tokens` tokens in all, none over `longest` (default: longest row)."""
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
        labels=np.concatenate([rows.labels, np.zeros((fillers, *rows.labels.shape[1:]), dtype=rows.labels.dtype)]),
        example_ids=np.concatenate([rows.example_ids, np.full(fillers, NO_EXAMPLE)]),
        positions=np.concatenate([rows.positions, *(np.arange(length) for length in lengths)]),
        cu_seqlens=np.concatenate([rows.cu_seqlens, own + lengths.cumsum(dtype=np.int32)]),
    )


def filler_rows(token: int, labels: np.ndarray) -> Ragged:
    """Make one sequence of one token that belongs to no example: a rank without work computes it.

    Its label has the type and width of `labels`, which may be of no row.
    """
    return Ragged(
        tokens=np.array([token], dtype=np.uint32),
        lengths=np.ones(1, dtype=np.int32),
        first_lengths=np.ones(1, dtype=np.int32),
        labels=np.zeros((1, *labels.shape[1:]), dtype=labels.dtype),
        example_ids=np.array([NO_EXAMPLE]),
        positions=np.zeros(1, dtype=np.int64),
        cu_seqlens=np.array([0, 1], dtype=np.int32),
    )
