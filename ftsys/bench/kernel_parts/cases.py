"""Lists the kernels that `ftsys bench kernels` compiles: each case launches them as a run would, on small CPU tensors.

A new kernel needs one line in `cases`, with a function that calls it forward and backward.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ftsys.kernels.dropout import NO_DROPOUT, AttentionDropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern
from ftsys.kernels.triton_attention.launch import flash_attention

HEADS = (32, 64, 96, 128, 256)
TOKENS, HEAD_COUNT = 64, 12
PRODUCTS = {"forward": 2, "query_gradients": 3, "key_gradients": 4}
"""Products of blocks that an attention kernel computes for each block that it visits."""


@dataclass(frozen=True)
class Case:
    """A group of kernels: its name, and a function that launches them for a dtype, with dropout or without."""

    name: str
    launch: Callable[[torch.dtype, bool], None]


def cases(heads: tuple[int, ...] = HEADS) -> list[Case]:
    """Return all cases, with the attention's for these head sizes."""
    return [Case(f"head {size}", _attention_of(size)) for size in heads]


def _attention_of(size: int) -> Callable[[torch.dtype, bool], None]:
    return lambda dtype, drops: attention(size, dtype, drops)


def attention(size: int, dtype: torch.dtype, drops: bool, pattern: Pattern = PLAIN) -> None:
    """Launch the attention's kernels for heads of `size` elements, forward and backward."""
    query, key, value = (torch.empty(TOKENS, HEAD_COUNT, size, dtype=dtype, requires_grad=True) for _ in range(3))
    layout = PackedLayout(torch.tensor([0, TOKENS], dtype=torch.int32), TOKENS)
    dropout = AttentionDropout(0.1, 1, torch.zeros(TOKENS, dtype=torch.int64)) if drops else NO_DROPOUT
    output = flash_attention(query, key, value, layout, size**-0.5, dropout, pattern)
    output.backward(torch.empty_like(output))
