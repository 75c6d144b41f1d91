"""Two modes of torch that make CPU tensors behave as those of a GPU: one for what Python asks, one for operations.

Values are computed on the CPU, so they are right. What differs from the CPU is seen: a tensor's device, operands on
different devices (an error, as on a GPU), and what the host would wait for.
"""

import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fake_device.graphs import Tape
from tests.fake_device.memory import GPU, HOST, PINNED, on_gpu, put, side_of, tensors_in

_MOVES = (Tensor.to, Tensor.cuda, Tensor.cpu)
_GET_DEVICE, _IS_CUDA, _IS_CPU = (getattr(Tensor, name).__get__ for name in ("device", "is_cuda", "is_cpu"))
_READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_consecutive"}
"""Operations whose result the host needs before it goes on."""
_TAKES_BOTH = {"copy_", "_to_copy", "index", "index_put_", "_index_put_impl_", "set_", "_record_function_enter_new"}
"""Operations that may have operands on the host and on the GPU."""


@dataclass
class Ledger:
    """What the host has asked of the fake GPU."""

    waits: list[str] = field(default_factory=list)
    """Of each wait, its reason and the line of this project's code that led to it."""
    launches: Counter[str] = field(default_factory=Counter)
    work: int = 0
    """Operations that the GPU was given so far, a graph's own ones included."""
    tape: Tape | None = None
    """The operations of the CUDA graph that is being captured."""
    index: int = 0
    """Number of the GPU that this process uses."""

    @property
    def device(self) -> torch.device:
        """The GPU that this process uses."""
        return torch.device("cuda", self.index)

    def wait(self, reason: str) -> None:
        """Note a wait at the present place."""
        between = ("/fake_device/", "/_dynamo/", "/_compile.py", "/overrides.py")
        stack = [each for each in traceback.extract_stack() if not any(part in each.filename for part in between)]
        ours = next((each for each in reversed(stack) if "/ftsys/" in each.filename), stack[-1])
        places = dict.fromkeys(f"{'/'.join(each.filename.split('/')[-2:])}:{each.lineno}" for each in (ours, stack[-1]))
        self.waits.append(f"{reason} in {', '.join(places)}")


class PythonSide(TorchFunctionMode):
    """Answers for a tensor's device, and makes or moves tensors on the fake GPU."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device or func.__name__ == "_parse_to":
            return func(*args, **kwargs)
        if func == _GET_DEVICE:
            return self._ledger.device if on_gpu(args[0]) else func(*args)
        if func in (_IS_CUDA, _IS_CPU):
            return on_gpu(args[0]) == (func == _IS_CUDA)
        if func is Tensor.get_device:
            return self._ledger.index if on_gpu(args[0]) else -1
        if func is Tensor.pin_memory:
            return put(args[0].clone(), PINNED)
        if func is Tensor.is_pinned:
            return side_of(args[0]) == PINNED
        if func in _MOVES:
            return self._moved(func, args, kwargs)
        return self._made(func, args, kwargs)

    def _moved(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        tensor, rest = args[0], list(args[1:])
        goal, given = _device_in(rest, kwargs)
        if func is Tensor.cpu:
            goal = HOST
        elif func is Tensor.cuda:
            goal, rest, given = GPU, [], {"non_blocking": kwargs.get("non_blocking", False)}
        elif goal is None and rest and isinstance(rest[0], Tensor):
            goal = GPU if on_gpu(rest[0]) else HOST
        moved: Tensor = tensor
        if goal is not None and (goal == GPU) != on_gpu(tensor):
            moved = put(torch.empty_like(tensor, device="cpu"), goal)
            moved.copy_(tensor, non_blocking=given.get("non_blocking", False))
        if func is Tensor.to and (rest or given):
            converted: Tensor = func(moved, *rest, **given)
            return converted if converted is moved else put(converted, side_of(moved) or HOST)
        return moved

    def _made(self, func: Any, args: Any, kwargs: Any) -> Any:
        rest = list(args)
        goal, given = _device_in(rest, kwargs)
        if goal is None and not given.get("pin_memory"):
            result = func(*args, **kwargs)
            if not any(True for _ in tensors_in([args, kwargs])):
                for made in tensors_in(result):
                    if side_of(made) is None:
                        put(made, HOST)
            return result
        pinned = given.pop("pin_memory", False)
        if goal == GPU and func in (torch.tensor, torch.as_tensor, torch.asarray):
            self._ledger.wait("copy of Python numbers")
        result = func(*rest, **given)
        return put(result, PINNED if pinned and goal != GPU else goal or HOST)


def _device_in(args: list[Any], kwargs: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return the side that the arguments name, and `kwargs` for the CPU; `args` are changed in place."""
    given, goal = dict(kwargs), None
    for index, value in enumerate(args):
        if isinstance(value, torch.device) or (isinstance(value, str) and value.partition(":")[0] in ("cuda", "cpu")):
            goal, args[index] = _placed(value)
    if given.get("device") is not None:
        goal, given["device"] = _placed(given["device"])
    return goal, given


def _placed(device: Any) -> tuple[str | None, torch.device]:
    """Return the side that `device` means, and where its memory is; no side for a device that holds none ("meta")."""
    named = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if named.type not in ("cuda", "cpu"):
        return None, named
    return GPU if named.type == "cuda" else HOST, torch.device("cpu")


class GpuSide(TorchDispatchMode):
    """Runs each operation on the CPU, and marks its results; notes launches and waits.

    Raises RuntimeError for operands on different devices.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        given = list(tensors_in([args, kwargs]))
        gpu = any(map(on_gpu, given))
        if gpu:
            self._check(name, args, given)
        with torch._C.DisableTorchFunction():  # an operation that C++ calls is no call of Python's
            if self._ledger.tape is not None:
                self._ledger.tape.before(func, args, kwargs)
            result = func(*args, **kwargs)
            if self._ledger.tape is not None:
                self._ledger.tape.after(func, args, kwargs, result)
        if gpu:
            self._mark(func, name, args, result)
        return result

    def _check(self, name: str, args: Any, given: list[Tensor]) -> None:
        if name in _READS and on_gpu(given[0]):
            self._ledger.wait(name)
        if name == "copy_":
            self._check_copy(args)
        elif name in ("index", "index_put_", "_index_put_impl_"):
            self._check_index(args)
        elif name not in _TAKES_BOTH and not name.startswith("_foreach"):
            stray = [each for each in given if side_of(each) in (HOST, PINNED) and each.dim() > 0]
            if stray:
                shapes = [tuple(each.shape) for each in stray]
                raise RuntimeError(f"{name}: all tensors must be on the same device, but {shapes} are on the host")

    def _check_copy(self, args: Any) -> None:
        target, source = args[:2]
        late = len(args) > 2 and args[2]
        if on_gpu(target) == on_gpu(source):
            return
        host = source if on_gpu(target) else target
        if not late or side_of(host) != PINNED:
            self._ledger.wait("copy to the GPU" if on_gpu(target) else "copy to the host")

    def _check_index(self, args: Any) -> None:
        for index in tensors_in(args[1]):
            if index.dtype in (torch.bool, torch.uint8):
                self._ledger.wait("index by a mask")
            elif not on_gpu(index):
                self._ledger.wait("index from the host")

    def _mark(self, func: Any, name: str, args: Any, result: Any) -> None:
        host_result = name in _READS and name != "nonzero"
        for made in tensors_in(result):
            if side_of(made) is None and not host_result:
                put(made, GPU)
        if name == "copy_" and not on_gpu(args[0]):
            return
        if not func.is_view and "empty" not in name and name != "detach":
            self._ledger.launches[name] += 1
            self._ledger.work += 1
