"""Wraps torch's collectives, and lets rank 0 decide for all ranks. Without a process group there is one rank.

Ranks exchange values as JSON in tensors of bytes. torch's own collectives for objects use pickle, with which whoever
takes the place of a rank could run code on the others.
"""

import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from ftsys.errors import FtsysError, error_as_words, error_from_words
from ftsys.files.untrusted import json_object
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


def broadcast_json(value: Any) -> Any:
    """Return rank 0's `value` on every rank. Collective.

    Raises TypeError on every rank for a value that JSON cannot give back as it was (see `_message`); a single rank
    sends nothing, and gets any value back.
    """
    if world_size() == 1:
        return value
    own = _message(value) if rank() == 0 else b""
    size = torch.tensor([len(own)], device=collective_device())
    distributed.broadcast(size, 0)
    sent = torch.empty(int(size), dtype=torch.uint8, device=size.device)
    if rank() == 0:
        sent.copy_(_as_tensor(own))
    distributed.broadcast(sent, 0)
    return _value_of(sent, 0)


def all_gather_json(value: Any) -> list[Any]:
    """Return every rank's `value`, by rank, on every rank. Collective. Raises as `broadcast_json` does."""
    if world_size() == 1:
        return [value]
    own = _as_tensor(_message(value)).to(collective_device())
    sizes_R = torch.empty(world_size(), dtype=torch.int64, device=own.device)
    distributed.all_gather(list(sizes_R.split(1)), torch.tensor([len(own)], device=own.device))
    sizes = sizes_R.tolist()
    rows = _all_gather_piece(own, sizes).split(sizes)
    return [_value_of(row, number) for number, row in enumerate(rows)]


def _message(value: Any) -> bytes:
    """Return `value` as JSON: None, text, numbers with NaN and infinities, lists, and dicts with keys of text.

    Nothing else comes back as it was, such as a tuple, a path or a key that is a number: then the message says so to
    every rank, since those that only receive would wait for a sender that has failed.
    """
    lost = next(_lost(value), None)
    wrong = f"rank {rank()}: {lost!r:.200} of type {type(lost).__name__} cannot be sent as JSON: convert it before"
    return json.dumps({"value": value} if lost is None else {"wrong": wrong}).encode()


def _lost(value: Any) -> Iterator[Any]:
    """Yield what is in `value` that JSON has no form for."""
    if isinstance(value, dict):
        yield from (key for key in value if not isinstance(key, str))
        for item in value.values():
            yield from _lost(item)
    elif isinstance(value, list):
        for item in value:
            yield from _lost(item)
    elif not (value is None or isinstance(value, str | int | float)):
        yield value


def _value_of(message: Tensor, sender: int) -> Any:
    """Return the value of a rank's message, uint8 (bytes,). Raises TypeError where it could not be sent."""
    try:
        told = json_object(message.cpu().numpy().tobytes())
    except ValueError as error:
        raise FtsysError(f"what rank {sender} sent is no message of a rank ({error}): start the run again.") from error
    if "wrong" in told:
        raise TypeError(told["wrong"])
    return told.get("value")


def _as_tensor(message: bytes) -> Tensor:
    return torch.frombuffer(bytearray(message), dtype=torch.uint8)


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
    """Call `decide` on rank 0 and return its result, which JSON can hold, on every rank. Collective.

    An FtsysError that it raises is raised on every rank, so that no rank waits for one that failed.
    """
    outcome: dict[str, Any] = {}
    own: FtsysError | None = None
    if is_main_rank():
        try:
            outcome = {"value": decide()}
        except FtsysError as error:
            outcome, own = {"error": error_as_words(error)}, error
        except Exception as error:  # whatever it is, the other ranks must not wait for a broadcast that never comes
            broadcast_json({"error": error_as_words(_failed(error))})
            raise
    theirs = broadcast_json(outcome)
    if "error" in theirs:
        raise _told(own or error_from_words(*theirs["error"]))
    value: Value = theirs["value"]
    return value


def agreed(work: Callable[[], Value]) -> Value:
    """Call `work`, in which ranks do not wait for each other, and return this rank's result. Collective.

    An FtsysError of any rank is raised on every rank; of several errors, that of the lowest rank.
    """
    own: FtsysError | None = None
    try:
        value = work()
    except FtsysError as error:
        own = error
    except Exception as error:  # whatever it is, the other ranks must not wait for this one's answer
        all_gather_json(error_as_words(_failed(error)))
        raise
    for number, words in enumerate(all_gather_json(None if own is None else error_as_words(own))):
        if words is not None:
            raise _told(own if own is not None and number == rank() else error_from_words(*words))
    return value


def _failed(error: Exception) -> FtsysError:
    return FtsysError(f"rank {rank()} failed: {type(error).__name__}: {error}")


def _told(error: FtsysError) -> FtsysError:
    error.told = True
    return error


def _has_group() -> bool:
    return distributed.is_available() and distributed.is_initialized()
