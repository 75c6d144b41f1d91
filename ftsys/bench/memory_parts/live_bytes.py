"""Counts the bytes of live tensors after every operation, and sorts them by kind; for real and fake tensors.

torch's own MemTracker does the same for a plain model and optimizer, but does not support DeepSpeed's engine. A test
checks that both agree where both can measure.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Block:
    """One storage: its bytes, its first and last operation, and the phase in which it was created."""

    bytes: int
    born: int
    phase: str
    operation: str
    shape: tuple[int, ...]
    died: int | None = None

    def lives_at(self, moment: int) -> bool:
        """Return True where the storage was alive after operation `moment`."""
        return self.born <= moment and (self.died is None or self.died > moment)


class LiveBytes(TorchDispatchMode):
    """Counts, while entered, every storage that an operation creates or reads; the caller sets `phase`.

    A storage is identified by torch's Python object for it, which lives as long as the storage does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase = "setup"
        self.moment = 0
        self.blocks: list[Block] = []
        self._block_of: dict[int, Block] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._total = 0
        self._peak = (0, 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.moment += 1
        for leaf in tree_leaves((result, args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.device.type != "meta":
                self.see(leaf, str(func))
        return result

    def see(self, tensor: Tensor, operation: str = "given") -> None:
        """Start to count the tensor's storage, or update its size."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._block_of.get(key)
        if known is not None and known.bytes == storage.nbytes():
            return
        if known is not None:
            self._close(key)
            known.died = self.moment
        block = Block(storage.nbytes(), self.moment, self.phase, operation, tuple(tensor.shape))
        self.blocks.append(block)
        self._block_of[key] = block
        self._watched[key] = weakref.ref(storage, lambda _: self._close(key))
        self._total += block.bytes
        if self._total > self._peak[0]:
            self._peak = (self._total, self.moment)

    def _close(self, key: int) -> None:
        block = self._block_of.pop(key, None)
        self._watched.pop(key, None)
        if block is not None:
            block.died = self.moment + 1  # it was alive right after the last operation
            self._total -= block.bytes

    def restart_peak(self) -> None:
        """Reset the peak to the current bytes."""
        self._peak = (self._total, self.moment)

    @property
    def peak_bytes(self) -> int:
        """Return the peak bytes since the last `restart_peak`."""
        return self._peak[0]

    def at_peak(self) -> list[Block]:
        """Return the storages that were alive at the peak."""
        return [block for block in self.blocks if block.lives_at(self._peak[1])]

    def blocks_of(self, tensors: Iterable[Tensor | None]) -> set[int]:
        """Return the identities (`id`) of the blocks that hold these tensors."""
        keys = {tensor.untyped_storage()._cdata for tensor in tensors if tensor is not None}
        return {id(self._block_of[key]) for key in keys if key in self._block_of}


def by_part(blocks: Iterable[Block], part_of: Callable[[Block], str]) -> dict[str, int]:
    """Sum the bytes of the blocks by part, largest first."""
    sums: dict[str, int] = {}
    for block in blocks:
        sums[part_of(block)] = sums.get(part_of(block), 0) + block.bytes
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
