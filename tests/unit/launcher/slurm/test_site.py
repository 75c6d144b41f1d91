"""Tests the CPUs that a GPU job asks for, by what SLURM tells about the site."""

import pytest

from ftsys.errors import LaunchError
from launcher.slurm import site
from launcher.slurm.site import cpus_for_gpus, gpus_in

PARTITIONS = """PartitionName=cpu AllowGroups=ALL TotalNodes=9 JobDefaults=(null) State=UP
PartitionName=gpu AllowGroups=ALL TotalNodes=2 JobDefaults=(null) State=UP
PartitionName=gpu-own AllowGroups=ALL TotalNodes=2 JobDefaults=DefCpuPerGPU=12,DefMemPerGPU=64000 State=UP
"""
NODES = """64|(null)|cpu*
128|gpu:a100:8(S:0-1)|gpu
96|gpu:8|gpu
16|gpu:2|gpu
128|gpu:h100:4(S:0,2),nvme:1|gpu-own
"""
STAR_GPU = NODES.replace("|cpu*", "|cpu").replace("|gpu\n", "|gpu*\n")


@pytest.mark.parametrize(
    ("gpus", "partition", "nodes", "cpus", "why"),
    [
        (8, "gpu", NODES, 96, "the share of 8 GPU(s) in the smallest node with as many"),
        (4, "gpu", NODES, 48, "the share of 4"),
        (2, "gpu", NODES, 16, "the share of 2"),
        (1, "gpu", NODES, 8, "the share of 1"),
        (1, "", STAR_GPU, 8, "the share of 1"),  # the site's default partition
        (4, "gpu-own", NODES, 0, "the site gives 12 for each GPU"),
        (4, "gpu-own,gpu", NODES, 0, "the site gives 12 for each GPU"),
        (16, "gpu", NODES, 64, "4 for each GPU, since sinfo names no node with 16 GPU(s)"),
        (2, "cpu", NODES, 8, "4 for each GPU, since sinfo names no node with 2 GPU(s)"),
    ],
)
def test_cpus_of_a_node(
    gpus: int, partition: str, nodes: str, cpus: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"scontrol": PARTITIONS, "sinfo": nodes}
    monkeypatch.setattr(site, "run_slurm", lambda *command: answers[command[0]])
    found = cpus_for_gpus(gpus, partition)
    assert found.cpus == cpus
    assert found.why.startswith(why)


def test_where_slurm_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*command: str) -> str:
        raise LaunchError("`scontrol show partition` failed: connect failure")

    monkeypatch.setattr(site, "run_slurm", away)
    found = cpus_for_gpus(8, "gpu")
    assert (found.cpus, found.why) == (32, "4 for each GPU, since `scontrol show partition` failed: connect failure")


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:8", 8),
        ("gpu", 1),
        ("gpu:a100:4", 4),
        ("gpu:a100", 1),
        ("gpu:1g.5gb:2", 2),
        ("gpu:a100:8(S:0-1)", 8),
        ("nvme:1,gpu:h100:4(S:0,2)", 4),
        ("gpu:a100:2,gpu:t4:1", 3),
        ("(null)", 0),
        ("nvme:1", 0),
    ],
)
def test_gpus_of_a_gres(gres: str, gpus: int) -> None:
    assert gpus_in(gres) == gpus
