"""Makes a machine without a GPU take the paths of a GPU: torch's operations, and stand-ins for Triton's kernels."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

from ftsys.kernels import select
from ftsys.kernels.native import library
from ftsys.kernels.triton_layers import choice

_ATTENTION, _LAYERS = "ftsys.kernels.triton_attention", "ftsys.kernels.triton_layers"
TRITON_KERNELS = (
    f"{_ATTENTION}.blocks",
    f"{_ATTENTION}.mask_bits",
    f"{_ATTENTION}.forward",
    f"{_ATTENTION}.gradients",
    f"{_ATTENTION}.launch",
    f"{_LAYERS}.masks",
    f"{_LAYERS}.keys",
    f"{_LAYERS}.dropout",
    f"{_LAYERS}.norm",
)
"""Modules that import Triton, each after those that it imports."""
READ_AS_PLACES = "_head_windows"
"""The kernel whose results, integers, torch's operations may read as places in a table: they must not be garbage."""


class _Constant:
    """Stands for `triton.language.constexpr`, which marks arguments and wraps constants."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Kernel:
    """A Triton kernel that counts its launches and computes nothing."""

    def __init__(self, name: str, launches: Counter[str]) -> None:
        self.name, self._launches = name, launches

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return self._launch

    def _launch(self, *args: Any, **kwargs: Any) -> None:
        self._launches.update([self.name])
        if self.name == READ_AS_PLACES:
            for tensor in (each for each in args if getattr(each, "dtype", None) is torch.int32):
                tensor.numpy().fill(0)  # by numpy, which torch's dispatcher does not see


@contextmanager
def gpu_paths() -> Iterator[Counter[str]]:
    """In this block the C++ kernels are off and Triton's attention is chosen; yields the launches of its kernels.

    Results of the attention are uninitialized memory: only the operations around it mean anything.
    """
    launches: Counter[str] = Counter()
    with (
        patch.object(library, "_given_up", ["operations of a GPU are counted"]),
        patch.object(select, "_why_not", _why_not_on_gpu),
        patch.object(choice, "why_not_triton", lambda device: None),
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


def _jit(launches: Counter[str], function: Any = None, **settings: Any) -> Any:
    return partial(_jit, launches) if function is None else _Kernel(function.__name__, launches)


def _triton(launches: Counter[str]) -> dict[str, ModuleType]:
    """The modules `triton` and `triton.language`, as far as the kernels' file needs them."""
    triton: Any = ModuleType("triton")
    triton.language = ModuleType("triton.language")
    triton.language.constexpr = _Constant
    triton.jit = partial(_jit, launches)
    triton.cdiv = lambda one, other: -(-one // other)
    triton.next_power_of_2 = lambda number: 1 << (number - 1).bit_length()
    return {"triton": triton, "triton.language": triton.language}
