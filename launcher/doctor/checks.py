"""Runs all checks of the doctor, in the order in which their findings are shown. Pure."""

from launcher.doctor.cpus import cpus
from launcher.doctor.devices import gpus, kernels, plan
from launcher.doctor.facts import ClusterFacts
from launcher.doctor.files import disk, folders, inputs, locks
from launcher.doctor.findings import Finding
from launcher.doctor.nccl import nccl_settings
from launcher.doctor.network import all_reduce, clocks, look_ups, rendezvous
from launcher.doctor.software import packages, python, reachability, sources

CHECKS = (
    reachability,
    python,
    packages,
    sources,
    gpus,
    cpus,
    nccl_settings,
    kernels,
    plan,
    look_ups,
    rendezvous,
    all_reduce,
    clocks,
    folders,
    disk,
    inputs,
    locks,
)


def run_checks(cluster: ClusterFacts) -> list[Finding]:
    """Return every finding about the nodes. Facts that a node could not report are not checked."""
    return [finding for check in CHECKS for finding in check(cluster)]
