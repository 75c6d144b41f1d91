"""Joins the ranks of a scoring and watches them, so that none waits for one that is lost or has found wrong input.

A scoring has no run folder: finished windows are its record. Imports no torch, which a single process loads later.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ftsys.console.printer import complain
from ftsys.errors import ConfigError, FtsysError, LaunchError, error_as_words, error_from_words
from ftsys.ranks import has_other_ranks, is_main_rank, may_complain

if TYPE_CHECKING:
    from ftsys.train.fault_tolerance.watchdog import Watchdog

Value = TypeVar("Value")

JOIN_SECONDS = 600.0
"""Longest time between the first and the last rank's start: nodes load the libraries over a network."""
SILENT_HEARTBEATS = 120
"""Heartbeats, of a second each, after which a silent rank is lost: one that reads a large JSON array sends none."""
COMPUTING = timedelta(days=30)
"""How long a rank may wait for the windows of the others. Their heartbeats say that they are there."""
ADVICE = "Start the same command again: it goes on from the windows that are finished."


@contextmanager
def together() -> Iterator[None]:
    """Join all ranks, watch them while the block runs, and leave the process group after it; one process does nothing.

    When a rank dies or is cut off, each other one ends with a message and FAILED. An FtsysError of this rank alone is
    printed here, since no other rank may be there to print it. Raises LaunchError where the ranks do not meet.
    """
    if not has_other_ranks():
        yield
        return
    from ftsys.distributed import leave_process_group, rank
    from ftsys.train.fault_tolerance.without_run import watchdog_without_run

    watchdog = watchdog_without_run("predict", ADVICE, SILENT_HEARTBEATS)
    try:
        with watchdog.watching():
            _join(watchdog)
            yield
    except FtsysError as error:
        if not (error.told or may_complain()):
            complain(f"rank {rank()}: {error}")
            error.told = True
        raise
    finally:
        leave_process_group()


def agreed(work: Callable[[], Value]) -> Value:
    """Call `work`, in which ranks do not wait for each other, and return this rank's result. Collective.

    An error of a rank is raised on all of them; it names the rank if rank 0 has none.
    """
    if not has_other_ranks():
        return work()
    from ftsys.distributed import agreed as agreed_by_ranks

    return agreed_by_ranks(partial(_named, work))


def _named(work: Callable[[], Value]) -> Value:
    """Call `work`. Raises an FtsysError that names this rank; for a file that may not be opened as well."""
    try:
        return work()
    except PermissionError as error:
        if error.filename is None:
            raise
        denied = f"{error.filename!r}: permission denied. Ask its owner, or name a file or folder of your own."
        raise _of_this_rank(ConfigError(denied)) from error
    except FtsysError as error:
        if is_main_rank():
            raise
        raise _of_this_rank(error) from error


def _of_this_rank(error: FtsysError) -> FtsysError:
    from ftsys.distributed import rank

    kind, text = error_as_words(error)
    return error_from_words(kind, text if is_main_rank() else f"on rank {rank()} ({socket.gethostname()}): {text}")


def _join(watchdog: "Watchdog") -> None:
    """Join the process group, of gloo: ranks exchange nothing but short messages. Raises LaunchError."""
    from torch import distributed
    from torch.distributed.distributed_c10d import _set_pg_timeout

    from ftsys.distributed import rank, stay_on_loopback, world_size

    try:
        if world_size() == 1:
            stay_on_loopback()
            distributed.init_process_group("gloo", timeout=timedelta(seconds=JOIN_SECONDS))
        watchdog.begin(rank(), world_size())
    except (RuntimeError, ValueError) as error:
        raise LaunchError(
            f"the ranks have not met within {JOIN_SECONDS:g} s: {str(error).splitlines()[0]:.300}. The output of a "
            "rank that is missing shows why; else check that the machines reach each other, and start again."
        ) from error
    _set_pg_timeout(COMPUTING)
