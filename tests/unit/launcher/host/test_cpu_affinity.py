"""Tests the cores and threads of each rank, on made-up machines."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ftsys.cpus.openmp import SPIN_COUNT
from ftsys.cpus.usable import Cores, usable_cores
from launcher.host.cpu_affinity import assign_cores, thread_environment
from tests.unit.cpus.machines import machine


def test_hardware_threads_of_a_core_stay_together(tmp_path: Path) -> None:
    cores = usable_cores(set(range(8)), machine(tmp_path))
    assert cores == Cores(((0, 4), (1, 5), (2, 6), (3, 7)))
    share = assign_cores(cores, 2)
    assert (share.threads, share.cpus) == (2, ((0, 4, 1, 5), (2, 6, 3, 7)))
    assert share.why == "2 threads each on cores of their own"


def test_cores_of_a_package_stay_together(tmp_path: Path) -> None:
    cores = usable_cores(set(range(8)), machine(tmp_path, packages=2, threads=1))
    share = assign_cores(cores, 2)
    assert share.cpus == ((0, 1, 2, 3), (4, 5, 6, 7))


def test_the_affinity_is_respected(tmp_path: Path) -> None:
    cores = usable_cores({1, 2, 5, 6}, machine(tmp_path))
    assert cores.physical == ((1, 5), (2, 6))
    share = assign_cores(cores, 4)
    assert (share.threads, share.cpus) == (1, ((1,), (5,), (2,), (6,)))
    assert "hardware threads" in share.why


def test_more_ranks_than_cpus_are_not_bound_and_do_not_spin(tmp_path: Path) -> None:
    share = assign_cores(usable_cores({0, 1}, machine(tmp_path, threads=1)), 8)
    assert (share.threads, share.cpus, share.crowded) == (1, None, True)
    assert share.why == "1 thread each, 8 ranks on 2 CPUs"
    assert thread_environment(share, {}) == {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "KMP_BLOCKTIME": "0",
    }


def test_what_the_user_has_set_is_kept(tmp_path: Path) -> None:
    share = assign_cores(usable_cores({0, 1}, machine(tmp_path, threads=1)), 1)
    spin = {"GOMP_SPINCOUNT": str(SPIN_COUNT)}
    assert thread_environment(share, {}) == {"OMP_NUM_THREADS": "2", **spin}
    assert thread_environment(share, {"OMP_NUM_THREADS": "7"}) == spin
    assert thread_environment(share, {"OMP_WAIT_POLICY": "ACTIVE"}) == {"OMP_NUM_THREADS": "2"}


def test_ranks_on_gpus_are_not_bound(tmp_path: Path) -> None:
    share = assign_cores(usable_cores(set(range(8)), machine(tmp_path)), 2, on_gpus=True)
    assert (share.threads, share.cpus) == (2, None)


def test_a_quota_below_the_cores_bounds_the_threads_and_binds_nothing() -> None:
    share = assign_cores(Cores(((0,), (1,), (2,), (3,)), quota=2.5), 2)
    assert (share.threads, share.cpus, share.crowded) == (1, None, False)
    assert "the cgroup gives 2.5 CPUs" in share.why


@given(st.integers(1, 4), st.lists(st.integers(0, 300), min_size=1, max_size=64, unique=True), st.integers(1, 80))
def test_no_two_ranks_share_a_cpu_and_none_goes_without(threads: int, cpus: list[int], ranks: int) -> None:
    physical = tuple(tuple(cpus[at : at + threads]) for at in range(0, len(cpus), threads))
    share = assign_cores(Cores(physical), ranks)
    assert share.threads >= 1
    if ranks > len(cpus):
        assert share.cpus is None
        return
    assert share.cpus is not None
    assert sorted(cpu for part in share.cpus for cpu in part) == sorted(cpus)
    assert all(len(part) >= share.threads for part in share.cpus)
    assert len(share.cpus) == ranks
