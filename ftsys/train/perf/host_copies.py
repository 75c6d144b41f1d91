"""Copies values of a GPU to the host behind its work, so that the host reads them later without stopping the GPU."""

import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor on the host, which the device makes when it comes to it."""

    def __init__(self, value: Tensor) -> None:
        """Start the copy of `value`, any shape and dtype; later changes of `value` do not reach it."""
        self._done: torch.cuda.Event | None = None
        if value.device.type == "cpu":
            self._copy = value.detach().clone()
            return
        # Only a copy into pinned memory lets the host go on.
        self._copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        self._copy.copy_(value.detach(), non_blocking=True)
        self._done = torch.cuda.Event()
        self._done.record()

    def read(self) -> float:
        """Return the number of a tensor with one element.

        The host waits until the device has made the copy. A step later that is over, or what was queued behind it
        keeps the device busy meanwhile.
        """
        if self._done is not None:
            self._done.synchronize()
        return self._copy.item()
