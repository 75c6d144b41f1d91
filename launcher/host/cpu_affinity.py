"""Assigns CPU cores and a number of threads to each local rank.

Ranks on CPUs get neighbouring physical cores of their own, with all hardware threads of those. The limits of this
process are respected: its affinity (a SLURM step or taskset sets it) and its cgroup's CPU quota.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ftsys.cpus.openmp import short_spin
from ftsys.cpus.usable import Cores

Item = TypeVar("Item")


@dataclass(frozen=True)
class CoreAssignment:
    """Threads of each local rank, and the CPUs that local rank i is bound to (`cpus[i]`), or None for no binding."""

    threads: int
    cpus: tuple[tuple[int, ...], ...] | None
    why: str
    """The assignment in words, for the line that announces a start."""
    crowded: bool = False
    """True if there are more ranks than cores: a rank that waits must sleep, not spin."""


def assign_cores(cores: Cores, ranks: int, on_gpus: bool = False) -> CoreAssignment:
    """Divide the cores among the ranks of a machine, whole physical cores if there are enough.

    Ranks on GPUs are not bound here: each binds itself to the NUMA node of its GPU (`ftsys.train.perf.numa`).
    """
    count = cores.usable
    if on_gpus:
        threads = max(1, count // ranks)
        return CoreAssignment(threads, None, f"{_threads(threads)} each", crowded=ranks > count)
    if cores.quota is not None and cores.quota < len(cores.physical):
        threads = max(1, count // ranks)
        why = f"{_threads(threads)} each, on no fixed cores (the cgroup gives {cores.quota:g} CPUs)"
        return CoreAssignment(threads, None, why, crowded=ranks > cores.quota)
    if ranks <= len(cores.physical):
        return _by_core(cores.physical, ranks)
    logical = [cpu for core in cores.physical for cpu in core]
    if ranks <= len(logical):
        parts = _parts(logical, ranks)
        why = f"{_threads(1)} each on hardware threads of their own"
        return CoreAssignment(1, tuple(tuple(part) for part in parts), why)
    return CoreAssignment(1, None, f"{_threads(1)} each, {ranks} ranks on {len(logical)} CPUs", crowded=True)


def _by_core(physical: tuple[tuple[int, ...], ...], ranks: int) -> CoreAssignment:
    threads = len(physical) // ranks
    cpus = tuple(tuple(cpu for core in part for cpu in core) for part in _parts(physical, ranks))
    alone = ranks == 1
    return CoreAssignment(
        threads, cpus, _threads(threads) if alone else f"{_threads(threads)} each on cores of their own"
    )


def _parts(items: Sequence[Item], ranks: int) -> list[Sequence[Item]]:
    """Divide the items into `ranks` consecutive parts whose lengths differ by one at most."""
    bounds = [len(items) * number // ranks for number in range(ranks + 1)]
    return [items[bounds[number] : bounds[number + 1]] for number in range(ranks)]


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def thread_environment(cores: CoreAssignment, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the thread settings for the ranks' environment, without those that the user has set."""
    threads = {"OMP_NUM_THREADS": str(cores.threads)}
    if not cores.crowded:
        return {name: value for name, value in threads.items() if name not in environ} | short_spin(environ)
    # GNU's and LLVM's OpenMP spin while they wait, and so take the core from the rank that they wait for.
    wanted = threads | {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
    return {name: value for name, value in wanted.items() if name not in environ}
