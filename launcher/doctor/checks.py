"""All that is judged, in the order in which it is told. Pure."""

from launcher.doctor.devices import gpus, plan
from launcher.doctor.facts import Examined
from launcher.doctor.files import disk, folders, inputs, locks
from launcher.doctor.findings import Finding
from launcher.doctor.network import all_reduce, clocks, look_ups, rendezvous
from launcher.doctor.software import answers, packages, python, sources

CHECKS = (
    answers,
    python,
    packages,
    sources,
    gpus,
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


def judge(examined: Examined) -> list[Finding]:
    """Every finding about the nodes. What a node could not tell is not judged."""
    return [finding for check in CHECKS for finding in check(examined)]
