"""Replaces what Python calls of torch.cuda, on a machine without a GPU, so that it sees one or several.

NVIDIA's libraries are absent: no stream runs beside another, and nothing is measured.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo
from accelerate.state import AcceleratorState, GradientState, PartialState

from ftsys.kernels import gpu_needs
from tests.fake_device.graphs import FakeGraph, capture
from tests.fake_device.memory import on_gpu, tensors_in
from tests.fake_device.modes import GpuSide, Ledger, PythonSide

MEMORY = 80 << 30
QUEUED_BEHIND = 50
"""Operations behind an event from which on the device is taken to be busy while the host waits for the event."""


class FakeStream:
    """A stream that runs in order with all others."""

    cuda_stream = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        found = event or torch.cuda.Event()
        found.record()
        return found

    def is_capturing(self) -> bool:
        return False

    def synchronize(self) -> None:
        torch.cuda.synchronize()


def _event_class(ledger: Ledger) -> type:
    class FakeEvent:
        """An event; to wait for it counts only where little was queued behind it."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._at: int | None = None

        def record(self, stream: Any = None) -> None:
            self._at = ledger.work

        def query(self) -> bool:
            return True

        def wait(self, stream: Any = None) -> None: ...

        def synchronize(self) -> None:
            if self._at is not None and ledger.work - self._at < QUEUED_BEHIND:
                ledger.wait("event of this step")

    return FakeEvent


def _properties(device: Any = None) -> Any:
    return SimpleNamespace(
        name="Fake GPU", major=9, minor=0, total_memory=MEMORY, multi_processor_count=132, uuid="GPU-0", warp_size=32
    )


def _index(device: Any) -> int:
    return device if isinstance(device, int) else torch.device(device).index or 0


def _answers(ledger: Ledger, count: int) -> dict[str, Any]:
    """Functions and classes of torch.cuda by name."""
    rng = torch.zeros(16, dtype=torch.uint8)
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_is_compiled": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "device_count": lambda: count,
        "current_device": lambda: ledger.index,
        "set_device": lambda device: setattr(ledger, "index", _index(device)),
        "device": lambda device: nullcontext(),
        "is_bf16_supported": lambda including_emulation=True: True,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "Fake GPU",
        "get_device_properties": _properties,
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "synchronize": lambda device=None: ledger.wait("synchronize"),
        "memory_allocated": lambda device=None: 1 << 20,
        "max_memory_allocated": lambda device=None: 1 << 21,
        "memory_reserved": lambda device=None: 1 << 21,
        "max_memory_reserved": lambda device=None: 1 << 21,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "get_rng_state": lambda device="cuda": rng.clone(),
        "get_rng_state_all": lambda: [rng.clone()],
        "set_rng_state": lambda state, device="cuda": None,
        "set_rng_state_all": lambda states: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "Stream": FakeStream,
        "Event": _event_class(ledger),
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda device=None: FakeStream(),
        "default_stream": lambda device=None: FakeStream(),
        "is_current_stream_capturing": lambda: False,  # asked by torch's optimizers, which no graph holds
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda mode: None,
        "graph_pool_handle": lambda: (0, 0),
        "CUDAGraph": lambda: FakeGraph(ledger),
        "graph": capture,
    }


def _grouped(by_c: Callable[..., Any], ledger: Ledger) -> Callable[..., Any]:
    """Group tensors by device as torch's function in C++ does, which sees CPU tensors only."""

    def group(lists: Any, with_indices: bool = False) -> dict[Any, Any]:
        found = by_c(lists, with_indices)
        return {
            (ledger.device if any(map(on_gpu, tensors_in(of))) else key[0], key[1]): of for key, of in found.items()
        }

    return group


def _with_mode(run: Callable[..., Any], mode: PythonSide) -> Callable[..., Any]:
    """Return torch's call of its engine with `mode` on: hooks, such as DeepSpeed's, make tensors on the GPU there."""

    def run_backward(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return run(*args, **kwargs)

    return run_backward


class _CpuAutocast(torch.autocast):
    """autocast of the CPU in place of the GPU's."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def forget_devices() -> None:
    """Make accelerate choose its device anew."""
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    GradientState._reset_state()


@contextmanager
def fake_gpu(count: int = 1) -> Iterator[Ledger]:
    """In this block torch sees `count` GPUs, and computes on the CPU what one of them is asked; yields the ledger."""
    ledger = Ledger()
    forget_devices()
    with ExitStack() as stack:
        for name, answer in _answers(ledger, count).items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        stack.enter_context(patch.object(torch, "autocast", _CpuAutocast))
        stack.enter_context(patch.object(torch.amp, "autocast", _CpuAutocast))
        stack.enter_context(patch.object(torch.Tensor, "record_stream", lambda tensor, stream: None))
        stack.enter_context(patch.object(torch.accelerator, "is_available", lambda: True))
        current = "current_accelerator"
        stack.enter_context(patch.object(torch.accelerator, current, lambda *args, **named: torch.device("cuda")))
        stack.enter_context(patch.object(torch.accelerator, "current_stream", lambda *args: FakeStream()))
        group = "_group_tensors_by_device_and_dtype"
        stack.enter_context(patch.object(torch._C, group, _grouped(getattr(torch._C, group), ledger)))
        stack.enter_context(patch.object(torch.backends.cuda, "is_flash_attention_available", lambda: False))
        # A CUDA build of torch brings Triton, whose kernels need a real GPU.
        stack.enter_context(patch.object(gpu_needs, "why_not_triton", lambda: "the GPU is a fake"))
        engine = "_engine_run_backward"
        stack.enter_context(
            patch.object(torch.autograd, engine, _with_mode(getattr(torch.autograd, engine), PythonSide(ledger)))
        )
        stack.enter_context(GpuSide(ledger))
        stack.enter_context(PythonSide(ledger))
        try:
            yield ledger
        finally:
            forget_devices()
