"""Calls flash attention of other libraries on a GPU: torch's variable-length kernels, and the flash-attn package.

Neither has keyed dropout. torch's kernels have no dropout, so they are used without it. The masks of flash-attn depend
on a number's place in the batch, and so on how a step is split into micro-batches; therefore it is used only if the run
file names it. torch's backward pass sums a query's gradient in no fixed order, unless
`torch.use_deterministic_algorithms` is on.
"""

import importlib.util
import inspect
from functools import cache

import torch
from torch import Tensor

from ftsys.kernels.dropout import AttentionDropout
from ftsys.kernels.gpu_needs import why_not_capability
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import Pattern

STEP, LARGEST = 8, 256
"""Head sizes of both libraries: multiples of STEP up to LARGEST."""


def takes(query_THK: Tensor, key_TGK: Tensor, value_TGK: Tensor, pattern: Pattern) -> bool:
    """Return True if both libraries support this: float16 or bfloat16 on a GPU, the head size, no relative terms."""
    dtypes = {states.dtype for states in (query_THK, key_TGK, value_TGK)}
    half = dtypes in ({torch.float16}, {torch.bfloat16})
    fits = query_THK.shape[-1] % STEP == 0 and query_THK.shape[-1] <= LARGEST
    return half and fits and query_THK.is_cuda and pattern.relative is None


def varlen_attention(
    query_THK: Tensor,
    key_TGK: Tensor,
    value_TGK: Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout,
    pattern: Pattern,
) -> Tensor:
    """Compute attention with torch's `varlen_attn`, for tensors that `takes` accepts.

    Shapes are those of `ftsys.kernels.attention`.

    Raises:
        ValueError: the dropout rate is above 0.
    """
    from torch.nn.attention.varlen import varlen_attn  # imports torch's compiler, half a second

    if dropout.rate > 0:
        raise ValueError("torch's variable-length attention drops nothing")
    shared = {"enable_gqa": True} if key_TGK.shape[1] != query_THK.shape[1] else {}
    bounds, longest = layout.cu_seqlens, layout.max_seqlen
    output: Tensor = varlen_attn(
        query_THK.contiguous(), key_TGK.contiguous(), value_TGK.contiguous(), bounds, bounds, longest, longest,
        scale=scale, window_size=window_of(pattern), **shared,
    )  # fmt: skip
    return output


@cache
def varlen_shares_keys() -> bool:
    """Return True if this torch's `varlen_attn` supports fewer key heads than query heads."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def package_attention(
    query_THK: Tensor,
    key_TGK: Tensor,
    value_TGK: Tensor,
    layout: PackedLayout,
    scale: float,
    dropout: AttentionDropout,
    pattern: Pattern,
) -> Tensor:
    """Compute attention with the flash-attn package, for tensors that `takes` accepts.

    Shapes are those of `ftsys.kernels.attention`. Dropout masks come from torch's generator, not from the keys.
    """
    from flash_attn import flash_attn_varlen_func

    bounds, longest = layout.cu_seqlens, layout.max_seqlen
    output: Tensor = flash_attn_varlen_func(
        query_THK.contiguous(), key_TGK.contiguous(), value_TGK.contiguous(), bounds, bounds, longest, longest,
        dropout_p=dropout.rate, softmax_scale=scale, causal=pattern.causal, window_size=window_of(pattern),
        deterministic=True,
    )  # fmt: skip
    return output


def window_of(pattern: Pattern) -> tuple[int, int]:
    """Return the numbers of keys that a query sees to its left and to its right, without its own; -1 for all.

    Both libraries use this convention.
    """
    left = -1 if pattern.window is None else pattern.window - 1
    return left, 0 if pattern.causal else left


@cache
def why_not_varlen() -> str | None:
    """Return the reason why torch's kernels cannot run on this machine, or None."""
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen"
    if not torch.backends.cuda.is_flash_attention_available():
        return f"torch {torch.__version__} was built without flash attention"
    return why_not_capability()


@cache
def why_not_package() -> str | None:
    """Return the reason why flash-attn cannot run on this machine, or None."""
    if importlib.util.find_spec("flash_attn") is None:
        return "flash-attn is not installed"
    try:
        importlib.import_module("flash_attn")
    except ImportError as error:  # built for another version of torch
        return f"flash-attn cannot be imported ({error})"
    return why_not_capability()


def why_not_heads(size: int) -> str | None:
    """Return the reason why heads of `size` elements are not supported, or None."""
    if size % STEP == 0 and size <= LARGEST:
        return None
    return f"the model's heads have {size} elements, and it takes multiples of {STEP} up to {LARGEST}"
