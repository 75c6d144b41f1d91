"""Sets how many threads OpenMP starts and how long they wait actively, by environment variables.

OpenMP reads them when it is loaded, so they are set before the first import of torch. Nothing that the user has set is
changed.
"""

from collections.abc import Mapping, MutableMapping

from ftsys.cpus.usable import Cores
from ftsys.ranks import local_world_size

SPIN_COUNT = 3_000
"""Turns of a loop in which a thread of GNU's OpenMP waits for the others of its team before it sleeps: 0.05 to 0.15 ms.

Its own default, 300,000, lasts several milliseconds. A thread that waits so long for one that another process has
displaced keeps that process from the core. 0 would cost a training alone a wake-up after each parallel loop.
"""
SPIN, WAIT_POLICY, THREADS = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"


def short_spin(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable for a short active wait; none where the user has chosen how threads wait."""
    return {} if SPIN in environ or WAIT_POLICY in environ else {SPIN: str(SPIN_COUNT)}


def quota_threads(environ: Mapping[str, str], cores: Cores) -> int | None:
    """Return the threads that a rank can keep busy within its cgroup's CPU quota; None where no quota limits them.

    All ranks of this machine share the quota. None too where OMP_NUM_THREADS is set.
    """
    if THREADS in environ or cores.quota is None or cores.quota >= len(cores.physical):
        return None
    ranks = local_world_size(environ) or "1"
    return max(1, cores.usable // max(1, int(ranks) if ranks.isdecimal() else 1))


def settle_openmp(environ: MutableMapping[str, str], cores: Cores) -> str:
    """Set what is not set in `environ`; returns a line about a quota that limits the threads, else an empty one."""
    environ.update(short_spin(environ))
    threads = quota_threads(environ, cores)
    if threads is None:
        return ""
    environ[THREADS] = str(threads)
    return limited_line(threads, cores)


def limited_line(threads: int, cores: Cores) -> str:
    """Say how many threads are used, and why."""
    return (
        f"{threads} thread{'s' if threads > 1 else ''}: the cgroup gives {cores.quota:g} of this machine's "
        f"{len(cores.physical)} cores (OMP_NUM_THREADS sets another number)"
    )
