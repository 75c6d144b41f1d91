"""Finds the cores that this process may use: its affinity (taskset or SLURM sets it) and its cgroup's quota."""

import math
import os
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path


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
        return self._within_quota(len(self.physical))

    @property
    def usable_threads(self) -> int:
        """Hardware threads that can be kept busy, 1 at least."""
        return self._within_quota(sum(len(core) for core in self.physical))

    def _within_quota(self, count: int) -> int:
        return max(1, count if self.quota is None else min(count, math.floor(self.quota)))


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
