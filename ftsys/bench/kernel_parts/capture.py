"""Compiles what a launch of Triton's kernels would compile on a GPU of any kind, without a GPU.

The kernels are launched by the code that a run uses, with tensors on the CPU, whose addresses are multiples of 16 like
those of torch's allocator on a GPU. Triton itself derives the specialization from these arguments: which pointers and
numbers are multiples of 16, which numbers are 1, and all constants. Only the launch on the device is left out.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ftsys.kernels.triton_attention import launch


@dataclass(frozen=True)
class Launch:
    """One launch: the kernel's name, its compiled program, and its arguments by name."""

    kernel: str
    binary: Any
    arguments: dict[str, Any]


class _Driver:
    """Stands for the driver of one GPU, as far as compiling needs it; its number keeps Triton's caches apart."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)


@contextmanager
def compiling_for(capability: int) -> Iterator[list[Launch]]:
    """In this block, Triton's kernels are compiled for this compute capability, 90 for 9.0, and not run.

    Yields the launches so far. What the kernels should have computed is uninitialized memory.
    """
    launches: list[Launch] = []
    run = JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        binary = run(kernel, *args, grid=grid, warmup=True, **kwargs)
        arguments = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        launches.append(Launch(kernel.fn.__name__.strip("_"), binary, arguments))
        return binary

    with ExitStack() as stack:
        stack.enter_context(patch.object(JITFunction, "run", compile_only))
        stack.enter_context(patch.object(launch, "capability_of", lambda device: capability))
        stack.enter_context(patch.object(driver, "_active", _Driver(capability)))
        yield launches
