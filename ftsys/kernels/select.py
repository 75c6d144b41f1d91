"""The one place that chooses the kernel of a run's attention, and says which and why.

A kernel that is made for some tensors and patterns hands the others to the next one in its chain, whose last link,
`padded_attention`, takes everything. Kernels whose masks depend on how a step is cut are never chosen, only demanded.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from ftsys.errors import ConfigError
from ftsys.kernels import library_attention
from ftsys.kernels.attention import Attention, padded_attention, reference_attention
from ftsys.kernels.dropout import NO_DROPOUT, AttentionDropout
from ftsys.kernels.grouped import grouped_attention
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.native.attention import LANES, native_attention
from ftsys.kernels.native.attention import takes as native_takes
from ftsys.kernels.native.library import NATIVE, why_not_native
from ftsys.kernels.pattern import PLAIN, Pattern

GROUPED, PADDED, TRITON, VARLEN, FLASH_ATTN = "grouped", "padded", "triton", "varlen", "flash_attn"
BY_SPEED = {"cpu": (NATIVE, GROUPED), "cuda": (TRITON, VARLEN, PADDED)}
"""What "auto" takes, the first that is to be had; the others of a device are demanded by name."""
ON_GPU = (TRITON, VARLEN, FLASH_ATTN)


@dataclass(frozen=True)
class _Asked:
    """One call of attention, its tensors (T, H, K) and (T, G, K)."""

    states: tuple[Tensor, Tensor, Tensor]
    layout: PackedLayout
    dropout: AttentionDropout
    pattern: Pattern

    @property
    def sees_all(self) -> bool:
        """Whether each query has key heads of its own and sees all keys, by their content alone."""
        query, key, _ = self.states
        hides = self.pattern.hidden_LL(self.layout.max_seqlen, query.device) is not None
        return query.shape == key.shape and not hides and self.pattern.relative is None

    @property
    def is_keyed(self) -> bool:
        """Whether no dropout is drawn from torch's generator."""
        return self.dropout.rate == 0 or self.dropout.keys_T is not None


@dataclass(frozen=True)
class _Fast:
    """A kernel for what it `takes`; `otherwise` has the rest."""

    name: str
    takes: Callable[[_Asked], bool]
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
        taken = self.takes(_Asked(states, layout, dropout, pattern))
        computes: Callable[..., Tensor] = COMPUTED_BY[self.name] if taken else self.otherwise
        return computes(*states, layout, scale, dropout, pattern)


def _takes_grouped(asked: _Asked) -> bool:
    return asked.sees_all and asked.is_keyed


def _takes_native(asked: _Asked) -> bool:
    return asked.sees_all and asked.is_keyed and native_takes(*asked.states)


def _takes_triton(asked: _Asked) -> bool:
    there = _why_not(TRITON, asked.states[0].device.type) is None
    return there and asked.is_keyed and asked.pattern.relative is None and _triton_takes_states(asked.states)


def _triton_takes_states(states: tuple[Tensor, Tensor, Tensor]) -> bool:
    from ftsys.kernels import triton_attention

    return triton_attention.takes(*states)


def _takes_varlen(asked: _Asked) -> bool:
    if asked.dropout.rate > 0 or not library_attention.takes(*asked.states, asked.pattern):
        return False
    query, key, _ = asked.states
    shares = key.shape[1] != query.shape[1]
    return _why_not(VARLEN, query.device.type) is None and (not shares or library_attention.varlen_shares_keys())


def _takes_flash_attn(asked: _Asked) -> bool:
    return library_attention.takes(*asked.states, asked.pattern)


def _triton(*told: Any) -> Tensor:
    from ftsys.kernels import triton_attention

    return triton_attention.flash_attention(*told)


def _for_plain(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A kernel without the argument `pattern`, which it knows to be plain."""
    return lambda *told: kernel(*told[:-1])


COMPUTED_BY: dict[str, Callable[..., Tensor]] = {
    GROUPED: _for_plain(grouped_attention),
    NATIVE: _for_plain(native_attention),
    TRITON: _triton,
    VARLEN: library_attention.varlen_attention,
    FLASH_ATTN: library_attention.package_attention,
}
_grouped = _Fast(GROUPED, _takes_grouped, padded_attention)
_triton_first = _Fast(TRITON, _takes_triton, _Fast(VARLEN, _takes_varlen, padded_attention))
KERNELS: dict[str, Attention] = {
    "reference": reference_attention,
    PADDED: padded_attention,
    GROUPED: _grouped,
    NATIVE: _Fast(NATIVE, _takes_native, _grouped),
    TRITON: _triton_first,
    VARLEN: _Fast(VARLEN, _takes_varlen, _triton_first),
    FLASH_ATTN: _Fast(FLASH_ATTN, _takes_flash_attn, _triton_first),
}


def choose_kernel(demanded: str, device: str = "cpu", head_size: int | None = None) -> str:
    """The kernel's name: `demanded`, or for "auto" the fastest that `device` ("cpu" or "cuda") has.

    Raises:
        ConfigError: `demanded` names a kernel that does not exist, that this machine cannot run, or that is not made
            for heads of `head_size`, where it is known.
    """
    if demanded == "auto":
        return next(name for name in BY_SPEED[device] if _why_not(name, device) is None)
    if demanded not in KERNELS:
        raise ConfigError(f"engine.kernels={demanded!r} is not a kernel. Use 'auto' or one of {sorted(KERNELS)}.")
    reason = _why_not(demanded, device) or (head_size and _why_not_heads(demanded, head_size))
    if reason is not None:
        raise ConfigError(f"engine.kernels={demanded!r} cannot be had here: {reason}. Use 'auto'.")
    return demanded


def why_not_fast(device: str) -> str | None:
    """The reason why "auto" takes a slower kernel on `device`, or None."""
    return _why_not(BY_SPEED[device][0], device)


def _why_not(name: str, device: str) -> str | None:
    if name == NATIVE:
        return why_not_native() if device == "cpu" else f"it runs on a CPU, not on {device}"
    if name in ON_GPU and device == "cpu":
        return "it runs on a GPU"
    if name == TRITON and not _has_triton():
        return "Triton is not installed"
    if name == VARLEN:
        return library_attention.why_not_varlen()
    return library_attention.why_not_package() if name == FLASH_ATTN else None


def _why_not_heads(name: str, size: int) -> str | None:
    if name == NATIVE and size % LANES:
        return f"the model's heads have {size} elements, and it takes multiples of {LANES}"
    if name in (VARLEN, FLASH_ATTN):
        return library_attention.why_not_heads(size)
    if name == TRITON:
        from ftsys.kernels.triton_attention import LARGEST

        return None if size <= LARGEST else f"the model's heads have {size} elements, and it takes up to {LARGEST}"
    return None


@cache
def _has_triton() -> bool:  # asked in every layer
    return importlib.util.find_spec("triton") is not None
