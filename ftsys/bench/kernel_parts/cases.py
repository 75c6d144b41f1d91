"""Lists the kernels that `ftsys bench kernels` compiles: each case launches them as a run would, on small CPU tensors.

A new kernel needs one line in `cases`, with a function that calls it forward and backward. Attention is compiled by
head size, the layers around it by the width of a token's row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ftsys.kernels.dropout import NO_DROPOUT, AttentionDropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern
from ftsys.kernels.triton_attention.launch import flash_attention
from ftsys.kernels.triton_layers import keys
from ftsys.kernels.triton_layers.dropout import RowDropout, keyed_dropout
from ftsys.kernels.triton_layers.norm import NormOf, add_norm

HEADS = (32, 64, 96, 128, 256)
WIDTHS = (384, 768, 1024, 4096)
SITE = 4096
TOKENS, HEAD_COUNT = 64, 12
PRODUCTS = {"forward": 2, "query_gradients": 3, "key_gradients": 4}
"""Products of blocks that an attention kernel computes for each block that it visits."""


@dataclass(frozen=True)
class Case:
    """A group of kernels: its name, and a function that launches them for a dtype, with dropout or without."""

    name: str
    launch: Callable[[torch.dtype, bool], None]


def cases(heads: tuple[int, ...] = HEADS, widths: tuple[int, ...] = WIDTHS) -> list[Case]:
    """Return all cases, with the attention's for these head sizes and the layers' for rows of these widths."""
    of_width = {"dropout": dropped, "LayerNorm": layer_norm, "RMSNorm": rms_norm}
    return [
        *(Case(f"head {size}", partial(attention, size)) for size in heads),
        Case("keys", dropout_keys),
        *(
            Case(f"width {width} {name}", partial(launch, width))
            for width in widths
            for name, launch in of_width.items()
        ),
    ]


def attention(size: int, dtype: torch.dtype, drops: bool, pattern: Pattern = PLAIN) -> None:
    """Launch the attention's kernels for heads of `size` elements, forward and backward."""
    query, key, value = (torch.empty(TOKENS, HEAD_COUNT, size, dtype=dtype, requires_grad=True) for _ in range(3))
    layout = PackedLayout(torch.tensor([0, TOKENS], dtype=torch.int32), TOKENS)
    dropout = AttentionDropout(0.1, 1, torch.zeros(TOKENS, dtype=torch.int64)) if drops else NO_DROPOUT
    output = flash_attention(query, key, value, layout, size**-0.5, dropout, pattern)
    output.backward(torch.empty_like(output))


def dropout_keys(dtype: torch.dtype, drops: bool) -> None:
    """Launch the kernels of a batch's dropout keys, and of the windows of all its attention layers, for any dtype."""
    if not drops:
        return
    bounds, positions = torch.tensor([0, TOKENS], dtype=torch.int32), torch.arange(TOKENS)
    keys_T = keys.token_keys(1, 1, bounds, TOKENS, torch.zeros(1, dtype=torch.int64), positions)
    keys.head_windows(keys_T, torch.zeros(HEAD_COUNT, dtype=torch.int64), HEAD_COUNT)


def dropped(width: int, dtype: torch.dtype, drops: bool) -> None:
    """Launch the kernel of dropout by itself, forward and backward; nothing without dropout."""
    drop = _row_dropout(drops)
    if drop is not None:
        output = keyed_dropout(_row(width, dtype), drop)
        output.backward(torch.empty_like(output))


def layer_norm(width: int, dtype: torch.dtype, drops: bool) -> None:
    """Launch the kernels of LayerNorm(residual + dropout(x + bias)), whose result two others read, as in BERT."""
    weight, shift, bias = (torch.empty(width, dtype=dtype, requires_grad=True) for _ in range(3))
    residual, how = _row(width, dtype), NormOf(1e-12, _row_dropout(drops))
    results = add_norm(_row(width, dtype), weight, how, residual, shift, bias)
    torch.autograd.backward(results, [torch.empty_like(each) for each in results])


def rms_norm(width: int, dtype: torch.dtype, drops: bool) -> None:
    """Launch the kernels of a RMSNorm, as in Llama: of `x` alone, so nothing for a model with dropout."""
    if drops:
        return
    result = add_norm(
        _row(width, dtype), torch.empty(width, dtype=dtype, requires_grad=True), NormOf(1e-6, centered=False)
    )
    result[0].backward(torch.empty_like(result[0]))


def _row(width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(TOKENS, width, dtype=dtype, requires_grad=True)


def _row_dropout(drops: bool) -> RowDropout | None:
    return RowDropout(torch.zeros(TOKENS, dtype=torch.int64), SITE, 0.1) if drops else None
