"""Makes a machine without a GPU take the paths of a GPU: torch's operations, and stand-ins for Triton's kernels."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

import ftsys.kernels
from ftsys.kernels import select
from ftsys.kernels.native import library

TRITON_KERNELS = "ftsys.kernels.triton_attention"


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
    """Import the kernels' file anew with a stand-in for Triton, and put the real one back afterwards."""
    real = sys.modules.pop(TRITON_KERNELS, None)
    vars(ftsys.kernels).pop("triton_attention", None)
    # Only around the import: other libraries must not find the stand-in.
    with patch.dict(sys.modules, _triton(launches)):
        kernels = import_module(TRITON_KERNELS)
    sys.modules[TRITON_KERNELS] = kernels
    try:
        yield
    finally:
        del sys.modules[TRITON_KERNELS], vars(ftsys.kernels)["triton_attention"]
        if real is not None:
            sys.modules[TRITON_KERNELS] = vars(ftsys.kernels)["triton_attention"] = real


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
