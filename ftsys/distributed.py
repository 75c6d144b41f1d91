"""What rank 0 finds or decides, on every rank: nobody computes it twice, and nobody waits for a rank that failed."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed

from ftsys.errors import FtsysError
from ftsys.ranks import is_main_rank

Value = TypeVar("Value")


def from_rank_0(value: Any) -> Any:
    """`value` of rank 0 on every rank."""
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: Any) -> list[Any]:
    """Every rank's `value`, by rank, on every rank."""
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def leave_process_group() -> None:
    """Destroy the process group if there is one. Every rank calls it."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def decided_by_rank_0(decide: Callable[[], Value]) -> Value:
    """What `decide` returns on rank 0, on every rank; its FtsysError is raised on every rank, so that none waits."""
    outcome: tuple[Any, FtsysError | None] = (None, None)
    if is_main_rank():
        try:
            outcome = (decide(), None)
        except FtsysError as error:
            outcome = (None, error)
        except Exception as error:  # whatever it is, the other ranks must not wait for a word that never comes
            from_rank_0((None, FtsysError(f"rank 0 failed: {type(error).__name__}: {error}")))
            raise
    value, refused = from_rank_0(outcome)
    if refused is not None:
        raise refused
    return value


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """The number of ranks; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1
