"""How many bytes of tensors are alive at each moment of a piece of work, and what they are; real or fake tensors.

torch's own MemTracker does the same for a plain model and optimizer; it knows no DeepSpeed engine. Both agree where
both can measure (a test).
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
    """One storage: its bytes, the operations between which it lived, and the phase it was made in."""

    bytes: int
    born: int
    phase: str
    operation: str
    shape: tuple[int, ...]
    died: int | None = None

    def lives_at(self, moment: int) -> bool:
        """Whether it was alive after operation `moment`."""
        return self.born <= moment and (self.died is None or self.died > moment)


class LiveBytes(TorchDispatchMode):
    """While entered, counts every storage that an operation makes or reads; `phase` is what the caller says it is.

    A storage is known by torch's Python object for it, which lives as long as the storage does.
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
        """Count the tensor's storage from now on, or its new size."""
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
            block.died = self.moment + 1  # it was there right behind the last operation
            self._total -= block.bytes

    def restart_peak(self) -> None:
        """Forget the peak so far."""
        self._peak = (self._total, self.moment)

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive at once since the last `restart_peak`."""
        return self._peak[0]

    def at_peak(self) -> list[Block]:
        """The storages alive then."""
        return [block for block in self.blocks if block.lives_at(self._peak[1])]

    def blocks_of(self, tensors: Iterable[Tensor | None]) -> set[int]:
        """The identities (`id`) of the blocks that these tensors lie in."""
        keys = {tensor.untyped_storage()._cdata for tensor in tensors if tensor is not None}
        return {id(self._block_of[key]) for key in keys if key in self._block_of}


def by_part(blocks: Iterable[Block], part_of: Callable[[Block], str]) -> dict[str, int]:
    """Bytes of the blocks, summed by part, largest first."""
    sums: dict[str, int] = {}
    for block in blocks:
        sums[part_of(block)] = sums.get(part_of(block), 0) + block.bytes
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
