"""Makes a machine without a GPU take the paths of a GPU: torch's operations, and stand-ins for Triton's kernels."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

from ftsys.kernels import select
from ftsys.kernels.native import library

_ATTENTION = "ftsys.kernels.triton_attention"
TRITON_KERNELS = (
    f"{_ATTENTION}.blocks",
    f"{_ATTENTION}.mask_bits",
    f"{_ATTENTION}.forward",
    f"{_ATTENTION}.gradients",
    f"{_ATTENTION}.launch",
)
"""Modules that import Triton, each after those that it imports."""


class _Kernel:
    """A Triton kernel that counts its launches and computes nothing."""

    def __init__(self, name: str, launches: Counter[str]) -> None:
        self.name, self._launches = name, launches

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: self._launches.update([self.name])


@contextmanager
def gpu_paths() -> Iterator[Counter[str]]:
    """In this block the C++ kernels are off and Triton's attention is chosen; yields the launches of its kernels.

    Results of the attention are uninitialized memory: only the operations around it mean anything.
    """
    launches: Counter[str] = Counter()
    with (
        patch.object(library, "_given_up", ["operations of a GPU are counted"]),
        patch.object(select, "_why_not", _why_not_on_gpu),
        _counting_kernels(launches),
    ):
        yield launches


@contextmanager
def _counting_kernels(launches: Counter[str]) -> Iterator[None]:
    """Import the kernels' files anew with a stand-in for Triton, and put the real ones back afterwards."""
    real = {name: module for name in TRITON_KERNELS if (module := _forget(name)) is not None}
    # Only around the import: other libraries must not find the stand-in.
    with patch.dict(sys.modules, _triton(launches)):
        counting = {name: import_module(name) for name in TRITON_KERNELS}
    sys.modules.update(counting)
    try:
        yield
    finally:
        for name in TRITON_KERNELS:
            _forget(name)
        for name, module in real.items():
            sys.modules[name] = module
            setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)


def _forget(name: str) -> ModuleType | None:
    """Take a module out of Python's table and out of its package; return it, or None if it was not imported."""
    package, _, last = name.rpartition(".")
    vars(import_module(package)).pop(last, None)
    return sys.modules.pop(name, None)


def _why_not_on_gpu(name: str, device: str) -> str | None:
    return None if name == select.TRITON else "operations of a GPU are counted"


def _triton(launches: Counter[str]) -> dict[str, ModuleType]:
    """The modules `triton` and `triton.language`, as far as the kernels' file needs them."""
    triton: Any = ModuleType("triton")
    triton.language = ModuleType("triton.language")
    triton.language.constexpr = object
    triton.jit = lambda function: _Kernel(function.__name__, launches)
    triton.cdiv = lambda one, other: -(-one // other)
    triton.next_power_of_2 = lambda number: 1 << (number - 1).bit_length()
    return {"triton": triton, "triton.language": triton.language}
