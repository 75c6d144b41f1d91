"""Wraps torch's collectives, and lets rank 0 decide for all ranks. Without a process group there is one rank."""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from ftsys.errors import FtsysError
from ftsys.ranks import all_on_one_node, is_loopback, is_main_rank, loopback_interface

Value = TypeVar("Value")
_STORE_SECONDS = timedelta(minutes=5)
_SERVED_ELSEWHERE = "TORCHELASTIC_USE_AGENT_STORE"
"""Variable by which torchrun tells torch that rank 0 connects to the store as all others do."""
_own_stores: "list[distributed.TCPStore]" = []
"""Stores that this process serves until it ends."""


def serve_store(address: str, port: int, seconds: timedelta = _STORE_SECONDS) -> "distributed.TCPStore":
    """Serve a key-value store at one address of this machine, where torch would serve it on all interfaces.

    Port 0 stands for any free one. Raises OSError where the port is in use, or the address is not of this machine.
    """
    listener = socket.create_server((address, port), backlog=socket.SOMAXCONN)
    port = listener.getsockname()[1]
    return distributed.TCPStore(
        address, port, None, True, seconds, wait_for_workers=False, master_listen_fd=listener.detach()
    )


def stay_on_loopback() -> None:
    """Keep what the ranks of one machine open away from the network; call it before torch makes the process group.

    Gloo uses the loopback interface unless GLOO_SOCKET_IFNAME is set. Rank 0 serves the store, for which torch would
    listen on all interfaces, where MASTER_ADDR is a loopback address and no torchrun serves one. A port in use is left
    to torch, which reports it.
    """
    address = os.environ.get("MASTER_ADDR", "")
    if (is_loopback(address) or all_on_one_node()) and (name := loopback_interface()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    if is_loopback(address) and os.environ.get("RANK") == "0" and os.environ.get(_SERVED_ELSEWHERE) != "True":
        with suppress(OSError, ValueError, OverflowError):
            _own_stores.append(serve_store(address, int(os.environ.get("MASTER_PORT", ""))))
            os.environ.update({"MASTER_PORT": str(_own_stores[-1].port), _SERVED_ELSEWHERE: "True"})


def rank() -> int:
    """Return this process's rank; 0 without a process group."""
    return distributed.get_rank() if _has_group() else 0


def world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return distributed.get_world_size() if _has_group() else 1


def leave_process_group() -> None:
    """Destroy the process group if there is one. Every rank calls it."""
    if _has_group():
        distributed.destroy_process_group()


def collective_device() -> torch.device:
    """Return the device on which the process group takes tensors: the current GPU under NCCL, else the CPU."""
    if world_size() > 1 and distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def broadcast_object(value: Any) -> Any:
    """Return rank 0's `value` on every rank. Collective."""
    if world_size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def all_gather_object(value: Any) -> list[Any]:
    """Return every rank's `value`, by rank, on every rank. Collective."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def any_rank(value: bool, device: torch.device) -> bool:
    """Return True on every rank if `value` is True on any. Collective, through a tensor on `device`."""
    return bool(MaxOverRanks(int(value), device).wait())


class MaxOverRanks:
    """The maximum of one integer over all ranks, reduced in the background. Collective: every rank makes one."""

    def __init__(self, value: int, device: torch.device) -> None:
        """Start the all-reduce of `value` (int32) in a tensor on `device`; a single rank needs neither."""
        self._own = value
        self._work = None
        if world_size() > 1:
            # Filled on the device: a copy of a number from the host would wait for the device.
            self._reduced = torch.full((1,), value, dtype=torch.int32, device=device)
            self._work = distributed.all_reduce(self._reduced, distributed.ReduceOp.MAX, async_op=True)

    def wait(self) -> int:
        """Wait for the all-reduce and return the maximum."""
        reduced = self.reduced()
        return self._own if reduced is None else int(reduced.item())

    def reduced(self) -> Tensor | None:
        """Return the maximum, int32 (1,), on the device; None for a single rank, whose own number it is.

        Under NCCL only the device waits for the other ranks, under gloo the host.
        """
        if self._work is None:
            return None
        self._work.wait()
        return self._reduced


def all_gather_pieces(parts: deque[Tensor], most: int) -> Iterator[Tensor]:
    """Yield the rows (M, ...) of all ranks in pieces that have at most `most` rows of each rank; at least one piece.

    `parts` are this rank's rows, one tensor at least. They leave the queue as they are sent, so that their memory is
    free for the result. Ranks may hold different numbers M. Collective: every rank takes all pieces.
    """
    no_rows, lengths = parts[0][:0], [sum(map(len, parts))]
    if world_size() > 1:
        counts_R = torch.zeros(world_size(), dtype=torch.int64, device=no_rows.device)
        distributed.all_gather(list(counts_R.split(1)), torch.tensor(lengths, device=no_rows.device))
        lengths = counts_R.tolist()
    for start in range(0, max(1, *lengths), most):
        sizes = [min(max(length - start, 0), most) for length in lengths]
        yield _all_gather_piece(torch.cat([no_rows, *_taken(parts, sizes[rank()])]), sizes)


def _taken(parts: deque[Tensor], rows: int) -> Iterator[Tensor]:
    """Take the first `rows` rows out of the queue, part by part."""
    while rows:
        part = parts.popleft()
        if len(part) > rows:
            parts.appendleft(part[rows:])
        yield part[:rows]
        rows -= min(rows, len(part))


def _all_gather_piece(rows: Tensor, sizes: list[int]) -> Tensor:
    """Return the rows of all ranks, of which rank r has `sizes[r]`."""
    if len(sizes) == 1:
        return rows
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(gathered, padded)
    return torch.cat([found[:size] for found, size in zip(gathered, sizes, strict=True)])


def decided_by_rank_0(decide: Callable[[], Value]) -> Value:
    """Call `decide` on rank 0 and return its result on every rank. Collective.

    An FtsysError that it raises is raised on every rank, so that no rank waits for one that failed.
    """
    outcome: tuple[Any, FtsysError | None] = (None, None)
    if is_main_rank():
        try:
            outcome = (decide(), None)
        except FtsysError as error:
            outcome = (None, error)
        except Exception as error:  # whatever it is, the other ranks must not wait for a broadcast that never comes
            broadcast_object((None, FtsysError(f"rank 0 failed: {type(error).__name__}: {error}")))
            raise
    value, refused = broadcast_object(outcome)
    if refused is not None:
        raise refused
    return value


def _has_group() -> bool:
    return distributed.is_available() and distributed.is_initialized()
