"""Assigns CPU cores and a number of threads to each local rank.

Ranks on CPUs get neighbouring physical cores of their own, with all hardware threads of those. The limits of this
process are respected: its affinity (a SLURM step or taskset sets it) and its cgroup's CPU quota.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Cores:
    """The physical cores that a process may use, each as its hardware threads, in the machine's order.

    `quota`: CPU time that the cgroup allows, in CPUs; None if it sets no limit.
    """

    physical: tuple[tuple[int, ...], ...]
    quota: float | None = None

    @property
    def usable(self) -> int:
        """Physical cores that can be kept busy, 1 at least."""
        bound = len(self.physical) if self.quota is None else min(len(self.physical), math.floor(self.quota))
        return max(1, bound)


@dataclass(frozen=True)
class CoreAssignment:
    """Threads of each local rank, and the CPUs that local rank i is bound to (`cpus[i]`), or None for no binding."""

    threads: int
    cpus: tuple[tuple[int, ...], ...] | None
    why: str
    """The assignment in words, for the line that announces a start."""
    crowded: bool = False
    """True if there are more ranks than cores: a rank that waits must sleep, not spin."""


def usable_cores(allowed: Set[int] | None = None, root: Path = Path("/")) -> Cores:
    """Return the cores that this process may use. `allowed`: logical CPUs, by default its affinity."""
    allowed = os.sched_getaffinity(0) if allowed is None else allowed
    cores: dict[tuple[int, int], list[int]] = {}
    for cpu in sorted(allowed):
        cores.setdefault(_place(cpu, root), []).append(cpu)
    return Cores(tuple(tuple(cores[place]) for place in sorted(cores)), _quota(root))


def _place(cpu: int, root: Path) -> tuple[int, int]:
    """Return (package, first hardware thread of the core): sorting by it makes cores that share caches neighbours."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    if not topology.exists():
        return 0, cpu
    siblings = (topology / "thread_siblings_list").read_text()
    return int((topology / "physical_package_id").read_text()), int(siblings.replace("-", ",").split(",")[0])


def _quota(root: Path) -> float | None:
    """Return the smallest CPU quota of this process's cgroups and those above them, in CPUs."""
    return min((limit for limit in _quotas(root)), default=None)


def _quotas(root: Path) -> Iterator[float]:
    listing = root / "proc/self/cgroup"
    for line in listing.read_text().splitlines() if listing.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _up(root / "sys/fs/cgroup", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            yield from _up(root / "sys/fs/cgroup/cpu", path, _quota_v1)


def _up(top: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    folder = top / path.lstrip("/")
    for place in (folder, *folder.parents):
        limit = read(place)
        if limit is not None:
            yield limit
        if place == top:
            return


def _quota_v2(folder: Path) -> float | None:
    path = folder / "cpu.max"
    words = path.read_text().split() if path.exists() else []
    return int(words[0]) / int(words[1]) if words and words[0] != "max" else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if not quota.exists() or int(quota.read_text()) <= 0:
        return None
    return int(quota.read_text()) / int(period.read_text())


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
    wanted = {"OMP_NUM_THREADS": str(cores.threads)}
    if cores.crowded:
        # GNU's and LLVM's OpenMP spin while they wait, and so take the core from the rank that they wait for.
        wanted |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
    return {name: value for name, value in wanted.items() if name not in environ}
