"""Divides one machine into slots: a GPU each, or a share of the CPU cores each."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ftsys.cpus.usable import usable_cores
from ftsys.errors import ConfigError
from ftsys.table.forecast import Slots
from launcher.host.cpu_affinity import assign_cores, thread_environment
from launcher.planner.world import cpu_has_bf16, this_machine, usable_gpus

CORES_A_SLOT = 4
"""Cores of a slot on a CPU, by default; machines with fewer than 8 have two slots."""

LAUNCHER_VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "CROSS_SIZE"),
)
"""Variables that make a process a rank of a larger world: each cell is a world of its own."""


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time. `cpus` are the logical CPUs that it is bound to, None for no binding."""

    number: int
    name: str
    environment: Mapping[str, str]
    cpus: tuple[int, ...] | None = None


def divide(count: int | None, runs_per_gpu: int, cpu: bool = False) -> tuple[Slots, list[Slot]]:
    """Divide the machine: `runs_per_gpu` slots for each visible GPU, or `count` slots of CPU cores.

    Raises ConfigError for counts below 1, and for --slots on a machine whose GPUs are used.
    """
    for option, value in (("--slots", count), ("--runs-per-gpu", runs_per_gpu)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} {value} is too small: give 1 or more.")
    gpus = () if cpu else usable_gpus(os.environ)
    return _cpu_slots(count) if not gpus else _gpu_slots(gpus, count, runs_per_gpu)


def _gpu_slots(gpus: tuple[str, ...], count: int | None, runs_per_gpu: int) -> tuple[Slots, list[Slot]]:
    if count is not None:
        raise ConfigError(
            f"--slots {count} divides CPUs, and this machine computes on {len(gpus)} GPU(s): write --runs-per-gpu N, "
            "limit CUDA_VISIBLE_DEVICES, or write --cpu."
        )
    names = [gpu for gpu in gpus for _ in range(runs_per_gpu)]
    threads = assign_cores(usable_cores(), len(names), on_gpus=True)
    slots = [
        Slot(number, f"gpu {gpu}", thread_environment(threads, os.environ) | {"CUDA_VISIBLE_DEVICES": gpu})
        for number, gpu in enumerate(names)
    ]
    return Slots(len(slots), this_machine({}, device="cuda"), threads.threads), slots


def _cpu_slots(count: int | None) -> tuple[Slots, list[Slot]]:
    cores = usable_cores()
    count = count or max(min(2, cores.usable), cores.usable // CORES_A_SLOT)
    share = assign_cores(cores, count)
    environment = thread_environment(share, {}) | {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    slots = [
        Slot(number, f"cpu slot {number}", environment, share.cpus[number] if share.cpus else None)
        for number in range(count)
    ]
    return Slots(count, this_machine({}, device="cpu", bf16_supported=cpu_has_bf16()), share.threads), slots


def cell_environment(slot: Slot) -> dict[str, str]:
    """Return the environment of a run in a slot: this process's, without the variables of a launcher around it."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    return kept | dict(slot.environment) | {"FTSYS_TASKS": "alone"}
