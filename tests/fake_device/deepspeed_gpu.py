"""DeepSpeed's CUDA accelerator on the fake GPU, set by DeepSpeed's own `set_accelerator`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.fake_device.cuda_api import fake_gpu
from tests.fake_device.modes import Ledger


@contextmanager
def deepspeed_gpu(count: int = 2) -> Iterator[Ledger]:
    """In this block torch and DeepSpeed see `count` GPUs; collectives go over gloo, and nothing marks a profile."""
    with fake_gpu(count) as ledger:
        from deepspeed.accelerator import get_accelerator, set_accelerator
        from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator

        class FakeCuda(CUDA_Accelerator):
            def __init__(self) -> None:
                super().__init__()
                self._communication_backend_name = "gloo"

            def range_push(self, *args: Any, **named: Any) -> None: ...

            def range_pop(self, *args: Any, **named: Any) -> None: ...

        before = get_accelerator()
        set_accelerator(FakeCuda())
        try:
            yield ledger
        finally:
            set_accelerator(before)
