"""Tests layouts of batches: padding on either side, labels of every kind, fillers, and copies to a device."""

from typing import Any

import numpy as np
import pytest
import torch

from ftsys.data.batching.collate import (
    NO_EXAMPLE,
    _aligned,
    _part,
    filled_to,
    filled_up,
    filler_rows,
    pack,
    pad,
    tensors_of,
    to_device,
)
from ftsys.data.store.reader import Ragged


def rows_of(lengths: list[int], labels: Any = None) -> Ragged:
    """Rows of these lengths, with the tokens 1, 2, ... and a first segment of a third of each row."""
    sizes = np.array(lengths, dtype=np.int32)
    return Ragged(
        tokens=np.arange(1, sizes.sum() + 1, dtype=np.uint16),
        lengths=sizes,
        first_lengths=sizes // 3,
        labels=np.arange(len(lengths)) if labels is None else np.array(labels),
        example_ids=np.arange(len(lengths)) + 70,
        positions=np.concatenate([np.arange(size) for size in lengths]),
        cu_seqlens=np.concatenate([[0], sizes.cumsum(dtype=np.int32)]).astype(np.int32),
    )


def test_padding_on_the_right() -> None:
    batch = pad(rows_of([3, 6]), True, pad_id=99)
    assert batch.input_ids_SL.tolist() == [[1, 2, 3, 99, 99, 99], [4, 5, 6, 7, 8, 9]]
    assert batch.attention_mask_SL.tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6]
    assert batch.token_type_ids_SL is not None
    assert batch.token_type_ids_SL.tolist() == [[0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]]
    assert (batch.labels_S.tolist(), batch.example_ids_S.tolist()) == ([0, 1], [70, 71])
    assert {tensor.dtype for tensor in tensors_of(batch).values()} == {torch.int64}
    assert batch.computed_tokens == 12


def test_padding_on_the_left() -> None:
    batch = pad(rows_of([3, 6]), True, pad_id=99, side="left")
    assert batch.input_ids_SL.tolist() == [[99, 99, 99, 1, 2, 3], [4, 5, 6, 7, 8, 9]]
    assert batch.attention_mask_SL.tolist() == [[0, 0, 0, 1, 1, 1], [1] * 6]
    assert batch.token_type_ids_SL is not None
    assert batch.token_type_ids_SL.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]]


def test_token_types_are_left_out_of_both_layouts() -> None:
    assert pad(rows_of([3]), False, pad_id=0).token_type_ids_SL is None
    assert pack(rows_of([3]), False).token_type_ids_T is None


def test_a_packed_batch_has_the_types_of_its_docstring() -> None:
    batch = pack(rows_of([3, 6]), True)
    found = {name: tensor.dtype for name, tensor in tensors_of(batch).items()}
    assert found.pop("cu_seqlens") == torch.int32
    assert set(found.values()) == {torch.int64}
    assert batch.token_type_ids_T is not None
    assert batch.token_type_ids_T.tolist() == [0, 1, 1, 0, 0, 1, 1, 1, 1]
    assert (batch.max_seqlen, batch.is_static, batch.computed_tokens) == (6, False, 9)


def test_labels_of_several_are_floats_and_others_keep_their_type() -> None:
    several = pack(rows_of([2, 2], [[1, 0, -1], [0, 1, 1]]), False).labels_S
    assert (several.dtype, several.tolist()) == (torch.float32, [[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]])
    assert pack(rows_of([2, 2], [0.5, 2.0]), False).labels_S.dtype == torch.float64


@pytest.mark.parametrize("tokens", [1, 31, 32, 63, 64, 65, 127, 128, 129, 255, 257, 1000, 1025])
def test_a_batch_is_filled_to_a_multiple_of_the_largest_power_of_two_within_a_thirty_second(tokens: int) -> None:
    power = max([1, *(1 << k for k in range(10) if 1 << k <= tokens / 32)])
    assert len(filled_up(rows_of([1] * tokens), 0).tokens) == -(-tokens // power) * power


def test_fillers_are_sequences_of_the_token_that_belong_to_no_example() -> None:
    rows = rows_of([3, 6], [[1, 0], [0, 1]])
    filled = filled_to(rows, token=5, tokens=17, longest=5)
    assert filled.tokens.tolist() == [*range(1, 10), *[5] * 8]
    assert filled.lengths.tolist() == [3, 6, 5, 3]
    assert filled.first_lengths.tolist() == [1, 2, 5, 3], "all of a filler is its first segment"
    assert filled.labels.tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    assert filled.example_ids.tolist() == [70, 71, NO_EXAMPLE, NO_EXAMPLE]
    assert filled.positions[9:].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert filled.cu_seqlens.tolist() == [0, 3, 9, 14, 17]
    assert [value.dtype for value in filled] == [value.dtype for value in rows]
    assert filled_to(rows, 5, 9) is rows


@pytest.mark.parametrize("labels", [np.array([3, 4]), np.array([0.5]), np.zeros((2, 3), dtype=np.int8)])
def test_a_rank_without_work_computes_one_token_of_no_example(labels: np.ndarray) -> None:
    rows = filler_rows(7, labels)
    assert (rows.tokens.tolist(), rows.lengths.tolist(), rows.first_lengths.tolist()) == ([7], [1], [1])
    assert (rows.positions.tolist(), rows.cu_seqlens.tolist(), rows.example_ids.tolist()) == ([0], [0, 1], [NO_EXAMPLE])
    assert (rows.labels.dtype, rows.labels.shape) == (labels.dtype, (1, *labels.shape[1:]))
    assert not rows.labels.any()
    assert (rows.lengths.dtype, rows.cu_seqlens.dtype, rows.positions.dtype) == (np.int32, np.int32, np.int64)


def test_a_cpu_needs_no_copy() -> None:
    batch = pack(rows_of([3]), True)
    assert to_device(batch, torch.device("cpu")) is batch


@pytest.mark.parametrize(("size", "place"), [(0, 0), (1, 256), (256, 256), (257, 512)])
def test_a_tensor_begins_at_a_multiple_of_the_alignment(size: int, place: int) -> None:
    assert _aligned(size) == place


def test_a_part_of_the_staged_bytes_is_a_tensor_of_its_type_and_shape() -> None:
    flat, value = torch.zeros(600, dtype=torch.uint8), torch.tensor([[1, 2], [3, 4]])
    _part(flat, 256, value).copy_(value)
    assert torch.equal(_part(flat, 256, value), value)
    assert flat[:256].sum() == flat[256 + value.nbytes :].sum() == 0
