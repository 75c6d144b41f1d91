"""Tests the cores that a process may use, on made-up machines."""

from pathlib import Path

import pytest

from ftsys.cpus.usable import Cores, usable_cores
from tests.unit.cpus.machines import machine


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/job\n", {"sys/fs/cgroup/job/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/job/step\n", {"sys/fs/cgroup/job/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/job\n", {"sys/fs/cgroup/job/cpu.max": "max 100000\n"}, None),
        (
            "3:cpu,cpuacct:/job\n",
            {"sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        ("3:cpu:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}, None),
    ],
)
def test_a_cgroups_quota(tmp_path: Path, cgroup: str, files: dict[str, str], quota: float | None) -> None:
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores({0, 1, 2, 3}, machine(tmp_path, threads=1)).quota == quota


@pytest.mark.parametrize(("quota", "cores", "threads"), [(None, 4, 8), (6.5, 4, 6), (2.9, 2, 2), (0.5, 1, 1)])
def test_cores_and_hardware_threads_that_a_quota_keeps_busy(quota: float | None, cores: int, threads: int) -> None:
    found = Cores(((0, 4), (1, 5), (2, 6), (3, 7)), quota)
    assert (found.usable, found.usable_threads) == (cores, threads)


def test_this_machine_has_cores() -> None:
    cores = usable_cores()
    assert cores.usable >= 1
