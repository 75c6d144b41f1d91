"""Selects the attention kernel of a run, and explains why another one cannot be used.

A kernel that supports only some tensors and patterns passes the others to the next kernel of its chain. The last one,
`padded_attention`, supports all. A kernel whose dropout masks depend on how a step is split into micro-batches is never
selected by "auto", only by its name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ftsys.distributed import all_gather_json, world_size
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
from ftsys.kernels.triton_layers import choice
from ftsys.kernels.triton_layers.choice import TRITON

GROUPED, PADDED, VARLEN, FLASH_ATTN = "grouped", "padded", "varlen", "flash_attn"
BY_SPEED = {"cpu": (NATIVE, GROUPED), "cuda": (TRITON, VARLEN, PADDED)}
"""Kernels that "auto" considers, fastest first; the first available one is used."""
ON_GPU = (TRITON, VARLEN, FLASH_ATTN)
_elsewhere: dict[str, str] = {}
"""Why another rank cannot run a kernel: then no rank uses it."""


@dataclass(frozen=True)
class _Call:
    """Holds the arguments of one attention call; `states` are query (T, H, K), key and value (T, G, K)."""

    states: tuple[Tensor, Tensor, Tensor]
    layout: PackedLayout
    dropout: AttentionDropout
    pattern: Pattern

    @property
    def sees_all(self) -> bool:
        """Return True if there is one key head per query head, no key is hidden, and there are no relative terms."""
        query, key, _ = self.states
        hides = self.pattern.hidden_LL(self.layout.max_seqlen, query.device) is not None
        return query.shape == key.shape and not hides and self.pattern.relative is None

    @property
    def is_keyed(self) -> bool:
        """Return True if no dropout mask comes from torch's generator."""
        return self.dropout.rate == 0 or self.dropout.keys_T is not None


@dataclass(frozen=True)
class _Fast:
    """Runs the kernel `name` for calls that it `takes`, and `otherwise` for the rest."""

    name: str
    takes: Callable[[_Call], bool]
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
        taken = self.takes(_Call(states, layout, dropout, pattern))
        computes: Callable[..., Tensor] = COMPUTED_BY[self.name] if taken else self.otherwise
        return computes(*states, layout, scale, dropout, pattern)


def _takes_grouped(call: _Call) -> bool:
    return call.sees_all and call.is_keyed


def _takes_native(call: _Call) -> bool:
    return call.sees_all and call.is_keyed and native_takes(*call.states)


def _takes_triton(call: _Call) -> bool:
    available = _why_not(TRITON, call.states[0].device.type) is None
    return available and call.is_keyed and call.pattern.relative is None and _triton_takes_states(call.states)


def _triton_takes_states(states: tuple[Tensor, Tensor, Tensor]) -> bool:
    from ftsys.kernels.triton_attention import launch

    return launch.takes(*states)


def _takes_varlen(call: _Call) -> bool:
    if call.dropout.rate > 0 or not library_attention.takes(*call.states, call.pattern):
        return False
    query, key, _ = call.states
    shares = key.shape[1] != query.shape[1]
    return _why_not(VARLEN, query.device.type) is None and (not shares or library_attention.varlen_shares_keys())


def _takes_flash_attn(call: _Call) -> bool:
    return library_attention.takes(*call.states, call.pattern)


def _triton(*arguments: Any) -> Tensor:
    from ftsys.kernels.triton_attention import launch

    return launch.flash_attention(*arguments)


def _for_plain(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `kernel` with the last argument, `pattern`, dropped: it supports plain patterns only."""
    return lambda *arguments: kernel(*arguments[:-1])


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


def choose_kernel(requested: str, device: str = "cpu", head_size: int | None = None) -> str:
    """Return the kernel's name: `requested`, or for "auto" the fastest one available on `device` ("cpu" or "cuda").

    Collective: all ranks get the same kernel, which every rank can run.

    Raises:
        ConfigError: `requested` is not a kernel, a rank cannot run it, or it does not support heads of `head_size`
            elements (not checked if None).
    """
    _agree([*BY_SPEED[device], requested] if requested in ON_GPU else BY_SPEED[device], device)
    if requested == "auto":
        return next(name for name in BY_SPEED[device] if _why_not(name, device) is None)
    if requested not in KERNELS:
        raise ConfigError(f"engine.kernels={requested!r} is not a kernel. Use 'auto' or one of {sorted(KERNELS)}.")
    reason = _why_not(requested, device) or (head_size and _why_not_heads(requested, head_size))
    if reason is not None:
        raise ConfigError(f"engine.kernels={requested!r} is not available here: {reason}. Use 'auto'.")
    return requested


def why_not_fast(device: str) -> str | None:
    """Return the reason why "auto" does not use the fastest kernel on `device`, or None if it does."""
    return _why_not(BY_SPEED[device][0], device)


def _agree(names: Sequence[str], device: str) -> None:
    """Give up kernels that another rank cannot run, also those that a chosen kernel passes calls to. Collective."""
    if world_size() == 1:
        return
    for rank, lacking in enumerate(all_gather_json({name: _why_not(name, device) for name in names})):
        for name in filter(lacking.get, lacking):
            _elsewhere.setdefault(name, f"on rank {rank}, {lacking[name]}")


def _why_not(name: str, device: str) -> str | None:
    return _why_not_here(name, device) or _elsewhere.get(name)


def _why_not_here(name: str, device: str) -> str | None:
    if name == NATIVE:
        return why_not_native() if device == "cpu" else f"it runs on a CPU, not on {device}"
    if name == TRITON:
        return choice.why_not_triton(device)
    if name in ON_GPU and device == "cpu":
        return "it runs on a GPU"
    if name == VARLEN:
        return library_attention.why_not_varlen()
    return library_attention.why_not_package() if name == FLASH_ATTN else None


def _why_not_heads(name: str, size: int) -> str | None:
    if name == NATIVE and size % LANES:
        return f"the model's heads have {size} elements, and it takes multiples of {LANES}"
    if name in (VARLEN, FLASH_ATTN):
        return library_attention.why_not_heads(size)
    if name == TRITON:
        from ftsys.kernels.triton_attention.tiles import LARGEST

        largest = max(LARGEST.values())
        return None if size <= largest else f"the model's heads have {size} elements, and it takes up to {largest}"
    return None
