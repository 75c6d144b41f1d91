"""Holds the CPU memory that one save after another is copied into, and copies into it behind a GPU's work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class StagingBuffers:
    """Staging buffers of one rank. Allocating them takes longer than filling them, so they are kept.

    For a GPU they are pinned, and the copies run on a stream of their own: the next step's passes run at the same time.
    `before_update` keeps the update behind them.
    """

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, str], Tensor] = {}
        self._stream: torch.cuda.Stream | None = None
        self._copied: torch.cuda.Event | None = None

    def copy(self, source: Tensor, kind: str, name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return a copy of the flat `source` with `shape` and `dtype` on the CPU; `kind` and `name` name its buffer.

        A GPU may still be making it: `wait` comes before it is read.
        """
        target = self.take(kind, name, shape, dtype, pinned=source.device.type == "cuda")
        if source.device.type != "cuda":
            target.view(-1).copy_(source)
        else:
            self._copy_behind(target.view(-1), source)
        return target

    def take(self, kind: str, name: str, shape: torch.Size, dtype: torch.dtype, pinned: bool = False) -> Tensor:
        """Return an uninitialized CPU tensor; the same one for the same `kind` and `name` while shape and dtype fit."""
        import torch

        kept = self._tensors.get((kind, name))
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            kept = self._tensors[kind, name] = torch.empty(shape, dtype=dtype, pin_memory=pinned)
        return kept

    def begin(self) -> None:
        """Let the copies that follow begin behind all that the GPU was asked so far."""
        import torch

        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())

    def _copy_behind(self, target: Tensor, source: Tensor) -> None:
        import torch

        if self._stream is None:
            self._stream = torch.cuda.Stream()
            self.begin()
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(self._stream)

    def before_update(self) -> None:
        """Make the GPU finish the copies before it goes on with what it is asked next, which may change the sources."""
        import torch

        if self._copied is not None:
            torch.cuda.current_stream().wait_event(self._copied)

    def wait(self) -> None:
        """Return once the copies are made; any thread may call it."""
        if self._copied is not None:
            self._copied.synchronize()

    def clear(self) -> None:
        """Free the memory."""
        self._tensors.clear()
        self._copied = None
