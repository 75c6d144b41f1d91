"""Counts the work that a GPU would get, by torch's dispatcher: kernel launches, waits, and bytes from the host.

An operation that computes counts as one launch, a view or an allocation as none. Operations on lists of tensors count
as many launches as torch's multi-tensor kernels need, which take a limited number of tensors and blocks each.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CHUNK = 65_536
"""Elements that one block of a multi-tensor kernel computes (torch's MultiTensorApply.cuh)."""
MOST_BLOCKS = 320
MOST_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""Limits of a launch by the number of tensor lists, in builds for CUDA 12; with CUDA 13 they are seven times higher."""

_ALLOCATIONS = {
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "resize_", "_unsafe_view", "set_",
    "_reshape_alias", "is_same_size",
}  # fmt: skip
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_consecutive"}
"""Operations whose result the host needs before it goes on."""


class LaunchCounter(TorchDispatchMode):
    """Counts the operations that run under it. `device` is the type of the tensors that stand for a GPU's.

    With "meta" nothing is computed, and tensors of the CPU are the host's. With "cpu" all tensors count as the GPU's,
    and literals that become tensors as copies.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.host_bytes = 0
        """Bytes copied from host to GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        space, _, name = func._schema.name.partition("::")
        if space == "profiler":
            return func(*args, **kwargs)
        if self._waits(name, args, kwargs):
            self.waits[name] += 1
        if name == "_local_scalar_dense" and args[0].device.type == "meta":
            return 1  # a tensor without memory has no number to give
        result = func(*args, **kwargs)
        self._count(name, func, [*args, *kwargs.values()], result)
        return result

    def _waits(self, name: str, args: Any, kwargs: Any) -> bool:
        sizes_unknown = name == "repeat_interleave" and kwargs.get("output_size") is None
        return (name in _WAITS or sizes_unknown) and args[0].device.type == self.device

    def _count(self, name: str, func: Any, given: Sequence[Any], result: Any) -> None:
        if name == "lift_fresh" or self._comes_from_host(name, given, result):
            self.waits["copy from the host"] += 1
            self.host_bytes += result.nbytes
        elif name.startswith(("_foreach", "_fused")):
            self.launches[name] += _list_launches(name, given, result)
        elif not (func.is_view or name in _ALLOCATIONS | _WAITS) and self._is_on_device(given, result):
            self.launches[name] += 1

    def _comes_from_host(self, name: str, given: Sequence[Any], result: Any) -> bool:
        source = given[1] if name == "copy_" else given[0] if name == "_to_copy" else None
        return isinstance(source, Tensor) and source.device.type != self.device == result.device.type

    def _is_on_device(self, given: Sequence[Any], result: Any) -> bool:
        found = result if isinstance(result, Tensor) else next((x for x in given if isinstance(x, Tensor)), None)
        return found is None or found.device.type == self.device


def _list_launches(name: str, given: Sequence[Any], result: Any) -> int:
    lists = [x for x in given if isinstance(x, list | tuple) and x and isinstance(x[0], Tensor)]
    if name.startswith("_fused"):
        lists = lists[:-1]  # the steps travel by address
    returned = 1 if isinstance(result, list | tuple) and name != "_foreach_norm" else 0
    launches = multi_tensor_launches([tensor.numel() for tensor in lists[0]], len(lists) + returned)
    return launches + (2 if name == "_foreach_norm" else 0)  # zeros for the partial sums, and their sum


def multi_tensor_launches(sizes: Sequence[int], lists: int) -> int:
    """Return the launches that one multi-tensor operation needs for `lists` lists of tensors of `sizes` elements."""
    launches = tensors = blocks = 0
    for size in filter(None, sizes):
        tensors += 1
        chunks = -(-size // CHUNK)
        for chunk in range(chunks):
            blocks += 1
            last = chunk == chunks - 1
            if blocks == MOST_BLOCKS or (last and tensors == MOST_TENSORS[lists]):
                launches, blocks, tensors = launches + 1, 0, 0 if last else 1
    return launches + (blocks > 0)
