"""A CUDA graph of the fake GPU: the operations of a pass, which a replay runs again on the same memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tests.fake_device.memory import tensors_in

_NOT_RUN = {"detach", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "alias"}


class Tape:
    """Operations in their order. On a GPU a capture computes nothing, so `undo` puts changed memory back."""

    def __init__(self) -> None:
        self._run: list[tuple[Any, Any, Any, Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []
        self._own: dict[int, Any] = {}

    def before(self, func: Any, args: Any, kwargs: Any) -> None:
        """Keep the values of older memory that the operation writes to."""
        for value, described in zip(args, func._schema.arguments, strict=False):
            if described.alias_info is not None and described.alias_info.is_write:
                for tensor in tensors_in(value):
                    if id(tensor.untyped_storage()) not in self._own:
                        self._before.append((tensor.detach(), tensor.detach().clone()))

    def after(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Add an operation."""
        given = {id(tensor.untyped_storage()) for tensor in tensors_in([args, kwargs])}
        for tensor in tensors_in(result):
            storage = tensor.untyped_storage()
            if id(storage) not in given:
                self._own[id(storage)] = storage
        if not func.is_view and func._schema.name.partition("::")[2] not in _NOT_RUN:
            self._run.append((func, args, kwargs, result))

    @property
    def operations(self) -> int:
        """Number of operations that a replay runs."""
        return len(self._run)

    def undo(self) -> None:
        """Put back what the capture has changed."""
        for tensor, values in reversed(self._before):
            tensor.copy_(values)

    def replay(self) -> None:
        """Run the operations, and write what they return into the memory of the capture."""
        for func, args, kwargs, result in self._run:
            for old, new in zip(tensors_in(result), tensors_in(func(*args, **kwargs)), strict=True):
                if new.untyped_storage() is not old.untyped_storage():
                    old.copy_(new)


class FakeGraph:
    """Stands for torch.cuda.CUDAGraph."""

    def __init__(self, ledger: Any) -> None:
        self.ledger, self.tape = ledger, Tape()

    def replay(self) -> None:
        """Run the captured operations; one launch."""
        with torch.no_grad(), torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            self.tape.replay()
        self.ledger.launches["graph"] += 1
        self.ledger.work += self.tape.operations


@contextmanager
def capture(graph: FakeGraph, **options: Any) -> Iterator[None]:
    """Stand for torch.cuda.graph: what runs in the block becomes `graph`."""
    graph.ledger.tape = graph.tape
    waits = len(graph.ledger.waits)
    try:
        yield
    finally:
        graph.ledger.tape = None
        with torch.no_grad(), torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            graph.tape.undo()
    if len(graph.ledger.waits) > waits:
        raise RuntimeError(f"operation not permitted when stream is capturing: {graph.ledger.waits[-1]}")
