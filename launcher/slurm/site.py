"""Derives the CPUs of a GPU job from what SLURM tells about the site; many sites have no default and give one CPU."""

import re
from dataclasses import dataclass

from ftsys.errors import LaunchError
from launcher.slurm.job import run_slurm

CPUS_PER_GPU = 4
"""CPUs for each GPU where SLURM does not answer: one for the rank, the others for loading and saving."""


@dataclass(frozen=True)
class CpuChoice:
    """The CPUs of a node to ask for, 0 to ask for none, and the reason."""

    cpus: int
    why: str


def cpus_for_gpus(gpus: int, partition: str) -> CpuChoice:
    """Choose the CPUs of a node for `gpus` ranks: the site's default, else their share of the smallest node.

    `partition`: the job's, "" for the site's default one.
    """
    try:
        settings = run_slurm("scontrol", "--oneliner", "show", "partition")
        nodes = run_slurm("sinfo", "--Node", "--noheader", "--format=%c|%G|%P")
    except LaunchError as error:
        return CpuChoice(CPUS_PER_GPU * gpus, f"{CPUS_PER_GPU} for each GPU, since {_first_line(error)}")
    partition = partition.partition(",")[0] or _default_partition(nodes)
    default = _default_per_gpu(settings, partition)
    if default:
        return CpuChoice(0, f"the site gives {default} for each GPU")
    share = _share(nodes, partition, gpus)
    if share is None:
        return CpuChoice(
            CPUS_PER_GPU * gpus, f"{CPUS_PER_GPU} for each GPU, since sinfo names no node with {gpus} GPU(s)"
        )
    return CpuChoice(share, f"the share of {gpus} GPU(s) in the smallest node with as many")


def gpus_in(gres: str) -> int:
    """Return the GPUs that a --gres such as gpu:a100:4,nvme:1 asks for on each node."""
    found = (re.fullmatch(r"gpu(?::(?!\d+(?:\(|$))[^:(]+)?(?::(\d+))?(?:\(.*\))?", part) for part in _parts(gres))
    return sum(int(match[1] or 1) for match in found if match)


def _parts(gres: str) -> list[str]:
    return re.split(r",(?![^(]*\))", gres)  # a list of sockets, such as (S:0,2), has commas too


def _first_line(error: LaunchError) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _default_partition(nodes: str) -> str:
    """Return the partition that sinfo marks by a star."""
    return next((line.split("|")[2].rstrip("*") for line in nodes.splitlines() if line.rstrip().endswith("*")), "")


def _default_per_gpu(settings: str, partition: str) -> int:
    for line in settings.splitlines():
        if re.search(rf"\bPartitionName={re.escape(partition)}(?=\s|$)", line):
            match = re.search(r"\bDefCpuPerGPU=(\d+)", line)
            return int(match[1]) if match else 0
    return 0


def _share(nodes: str, partition: str, gpus: int) -> int | None:
    """Return the CPUs that go with `gpus` GPUs in each node of the partition that has as many; None for none."""
    shares = []
    for line in nodes.splitlines():
        cpus, gres, name = line.split("|")
        has = gpus_in(gres.strip())
        if has >= gpus and name.strip().rstrip("*") == partition and cpus.strip().isdecimal():
            shares.append(int(cpus) * gpus // has)
    return min(shares, default=None)
