"""Marks CPU memory as a fake GPU's: a tensor is on the GPU if its storage says so, and so are all its views.

A storage made by torch's own C++ code may have no mark. It is of the side on which it is used first.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

_SIDE = "_fake_side"
HOST, PINNED, GPU = "host", "pinned", "gpu"


def side_of(tensor: Tensor) -> str | None:
    """Return HOST, PINNED or GPU; None for memory without a mark, or a tensor without memory."""
    try:
        return getattr(tensor.untyped_storage(), _SIDE, None)
    except (NotImplementedError, RuntimeError):  # sparse, meta and fake tensors
        return None


def put(result: Any, side: str) -> Any:
    """Mark the memory of all tensors in `result`; returns `result`."""
    for tensor in tensors_in(result):
        if tensor.device.type == "cpu" and tensor.layout.is_strided if hasattr(tensor.layout, "is_strided") else True:
            setattr(tensor.untyped_storage(), _SIDE, side)
    return result


def on_gpu(tensor: Tensor) -> bool:
    """Return True if the fake GPU holds `tensor`."""
    return side_of(tensor) == GPU


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in `values`: itself, or in lists, tuples and dictionaries of any depth."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        yield from tensors_in(list(values.values()))
