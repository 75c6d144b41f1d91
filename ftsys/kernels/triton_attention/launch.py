"""Launches the attention kernels: the function that the model calls, and its backward pass."""

import math
from functools import cache
from typing import Any

import torch
import triton

from ftsys.kernels.dropout import AttentionDropout, threshold
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern
from ftsys.kernels.triton_attention.forward import _forward
from ftsys.kernels.triton_attention.gradients import _key_gradients, _query_gradients
from ftsys.kernels.triton_attention.mask_bits import mask_bits
from ftsys.kernels.triton_attention.tiles import (
    FORWARD,
    KEY_GRADIENTS,
    LARGEST,
    QUERY_GRADIENTS,
    padded_size,
    tile_for,
)

LOG2_E = math.log2(math.e)
MOST_ELEMENTS = 1 << 31
"""Elements of one sequence in one tensor, from which on a place within the sequence needs more than 32 bits."""


def takes(query_THK: torch.Tensor, key_TGK: torch.Tensor, value_TGK: torch.Tensor) -> bool:
    """Return True if the kernels support these tensors: equal dtypes of 2 or 4 bytes, heads of up to LARGEST."""
    same = query_THK.dtype == key_TGK.dtype == value_TGK.dtype
    return same and query_THK.shape[-1] <= LARGEST.get(query_THK.element_size(), 0)


def flash_attention(
    query_THK: torch.Tensor,
    key_TGK: torch.Tensor,
    value_TGK: torch.Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout,
    pattern: Pattern = PLAIN,
) -> torch.Tensor:
    """Compute attention as defined in `ftsys.kernels.attention`, on a GPU.

    The tensors are those that `takes` accepts; the pattern must have no relative terms; dropout must be keyed.

    Raises:
        ValueError: the longest sequence has MOST_ELEMENTS elements of a query or more, or is longer than a window of
            the dropout tables.
    """
    elements = layout.max_seqlen * max(query_THK.shape[1] * query_THK.shape[2], *_rows_apart(query_THK, key_TGK))
    if elements >= MOST_ELEMENTS:
        raise ValueError(f"a sequence of {layout.max_seqlen} tokens has {elements} elements: {MOST_ELEMENTS} or more")
    output: torch.Tensor = _Flash.apply(query_THK, key_TGK, value_TGK, (layout, scale, dropout, pattern))
    return output


class _Flash(torch.autograd.Function):
    """Launches the kernels of the forward and the backward pass; none for a batch without tokens."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, where: Any) -> torch.Tensor:
        query, key, value = _readable(query, key, value)
        layout, scale, dropout, pattern = where
        bits = mask_bits(dropout, layout, query.shape[1], pattern)
        output, logs_TH = query.new_empty(query.shape), query.new_empty(query.shape[:2], dtype=torch.float32)
        if len(query):
            grid, shared, constants = _launch(FORWARD, query, key, bits, layout, scale, dropout.rate, pattern)
            _forward[grid(query)](query, key, value, output, logs_TH, *shared, **constants)
        ctx.save_for_backward(query, key, value, output, logs_TH, bits)
        ctx.where = (layout, scale, dropout.rate, pattern)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, logs_TH, bits = ctx.saved_tensors
        sums_TH = torch.empty_like(logs_TH)
        d_query, d_key, d_value = _gradients_like(query, key, value)
        given, rest = (query, key, value), (gradients[0].contiguous(), logs_TH, sums_TH)
        if len(query):  # the first kernel writes the sums that the second one reads
            grid, shared, constants = _launch(QUERY_GRADIENTS, query, key, bits, *ctx.where)
            _query_gradients[grid(query)](*given, output, *rest, d_query, *shared, **constants)
            grid, shared, constants = _launch(KEY_GRADIENTS, query, key, bits, *ctx.where)
            _key_gradients[grid(key)](*given, *rest, d_key, d_value, *shared, **constants)
        return d_query, d_key, d_value, None


def _readable(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the states so that their heads lie side by side, and keys as far apart as values; copied if need be."""
    states = [each if each.stride()[1:] == (each.shape[2], 1) else each.contiguous() for each in (query, key, value)]
    if states[1].stride() != states[2].stride():
        states[1:] = states[1].contiguous(), states[2].contiguous()
    return tuple(states)


def _rows_apart(query: torch.Tensor, key: torch.Tensor) -> tuple[int, int]:
    """Return the number of elements from one token's row to the next one's, of queries and of keys."""
    return query.stride(0), key.stride(0)


def _gradients_like(*states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return tensors for the gradients, with the strides of the states.

    States that are columns of one matrix, as a joint product makes them, have gradients that are columns of one: the
    product's backward pass then reads it without a copy.
    """
    widths = [each.shape[1] * each.shape[2] for each in states]
    if any(each.stride(0) != sum(widths) for each in states):
        return tuple(each.new_empty(each.shape) for each in states)
    columns = states[0].new_empty(len(states[0]), sum(widths)).split(widths, 1)
    return tuple(each.view(like.shape) for each, like in zip(columns, states, strict=True))


def _launch(
    kernel: str,
    query: torch.Tensor,
    key: torch.Tensor,
    bits: torch.Tensor | None,
    layout: PackedLayout,
    scale: float,
    rate: float,
    pattern: Pattern,
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the grid by a tensor's heads, the arguments that all kernels share, and their compile-time constants.

    Sequences times heads is the grid's first dimension, because the second one is limited to 65,535.
    """
    heads, size = query.shape[1:]
    padded = padded_size(size)
    tile = tile_for(kernel, capability_of(query.device), padded, query.element_size())
    sizes = (heads, key.shape[1], triton.cdiv(layout.max_seqlen, 32))
    scales = (scale * LOG2_E, *(() if kernel == FORWARD else (scale,)))
    numbers = (*scales, threshold(rate)[1], pattern.window or 0)
    shared = (layout.cu_seqlens, query if bits is None else bits, *sizes, *numbers)
    constants: dict[str, Any] = {
        "DROPS": bits is not None,
        "CAUSAL": pattern.causal,
        "WINDOWED": pattern.window is not None,
    }
    # As constants they take no registers; a model has few of them.
    constants |= dict(zip(("QUERY_ROW", "KEY_ROW"), _rows_apart(query, key), strict=True))
    constants |= {"WIDTH": size, "SIZE": padded, "OWN": tile.own, "VISITED": tile.visited}
    constants |= {"num_warps": tile.warps, "num_stages": tile.stages}
    blocks = triton.cdiv(layout.max_seqlen, tile.own)
    return lambda states: (layout.sequences * states.shape[1], blocks), shared, constants


@cache
def capability_of(device: torch.device) -> int:
    """Return a GPU's compute capability, 90 for 9.0. Triton's interpreter, on a CPU, runs what an A100 would."""
    if device.type != "cuda":
        return 80
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor
