"""Tests OpenMP's variables: what is set, what the user has set, and that a start sets them before torch is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftsys.cpus.openmp import SPIN_COUNT, quota_threads, settle_openmp
from ftsys.cpus.usable import Cores, usable_cores
from tests.unit.cpus.machines import machine, with_quota

FOUR = ((0,), (1,), (2,), (3,))


def test_threads_wait_actively_for_a_short_time_only() -> None:
    environ: dict[str, str] = {}
    assert settle_openmp(environ, Cores(FOUR)) == ""
    assert environ == {"GOMP_SPINCOUNT": str(SPIN_COUNT)}


@pytest.mark.parametrize("chosen", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_a_chosen_way_to_wait_is_kept(chosen: dict[str, str]) -> None:
    environ = dict(chosen)
    settle_openmp(environ, Cores(FOUR))
    assert environ == chosen


def test_a_containers_quota_sets_the_threads(tmp_path: Path) -> None:
    environ = {"OMP_WAIT_POLICY": "passive"}
    cores = usable_cores({0, 1, 2, 3}, with_quota(machine(tmp_path, threads=1), "250000 100000"))
    line = settle_openmp(environ, cores)
    assert environ == {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "2"}
    assert line.startswith("2 threads: the cgroup gives 2.5 of this machine's 4 cores")


@pytest.mark.parametrize(
    ("quota", "environ", "threads"),
    [
        (2.5, {}, 2),
        (0.5, {}, 1),
        (3.0, {"LOCAL_WORLD_SIZE": "2"}, 1),
        (3.0, {"LOCAL_WORLD_SIZE": "8"}, 1),
        (3.0, {"LOCAL_SIZE": "3"}, 1),
        (3.0, {"LOCAL_WORLD_SIZE": "two"}, 3),
        (2.5, {"OMP_NUM_THREADS": "4"}, None),
        (4.0, {}, None),
        (None, {}, None),
    ],
)
def test_threads_of_a_quota(quota: float | None, environ: dict[str, str], threads: int | None) -> None:
    assert quota_threads(environ, Cores(FOUR, quota)) == threads


def test_ftsys_train_sets_them_before_it_loads_torch(tmp_path: Path) -> None:
    looks = (
        "import atexit, os, sys\n"
        "from ftsys.cpus import openmp\n"
        "settle = openmp.settle_openmp\n"
        "def told(environ, cores):\n"
        "    settle(environ, cores)\n"
        '    return f\'torch loaded: {"torch" in sys.modules}, spins: {os.environ["GOMP_SPINCOUNT"]}\'\n'
        "openmp.settle_openmp = told\n"
        "sys.argv = ['ftsys', 'train', sys.argv[1]]\n"
        "from ftsys.cli import run\n"
        "run()\n"
    )
    environ = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", looks, str(tmp_path / "none.toml")]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert f"torch loaded: False, spins: {SPIN_COUNT}" in done.stderr
