"""Limits torch's threads to the cgroup's CPU quota in scripts, which import torch before they can be limited."""

import logging
import os
from collections.abc import Mapping

import torch

from ftsys.cpus.openmp import limited_line, quota_threads
from ftsys.cpus.usable import Cores, usable_cores

_LOG = logging.getLogger("ftsys")


def limit_threads(environ: Mapping[str, str], cores: Cores | None = None) -> None:
    """Lower torch's number of threads to what the cgroup's quota keeps busy, and say so.

    More threads than that are stopped by the kernel in the middle of each parallel loop. A number that somebody has
    set, by OMP_NUM_THREADS or `torch.set_num_threads`, is kept: torch's own is a thread for each CPU or each core.
    """
    cores = usable_cores() if cores is None else cores
    threads, now = quota_threads(environ, cores), torch.get_num_threads()
    if threads is None or now <= threads or now not in (len(os.sched_getaffinity(0)), len(cores.physical)):
        return
    torch.set_num_threads(threads)
    _LOG.warning("ftsys: %s", limited_line(threads, cores))
