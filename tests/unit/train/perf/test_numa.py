"""Tests the binding of a rank near its GPU, on made-up machines of two sockets."""

import os
from pathlib import Path

import pytest

from ftsys.train.perf.numa import Place, bind_near_gpu, place_of

ALL = set(range(16))
H100, T4 = "NVIDIA H100 80GB HBM3", "Tesla T4"


def machine(root: Path, numa: tuple[int, ...] = (0, 0, 1, 1), models: tuple[str, ...] = (H100,) * 4) -> Path:
    """Two nodes with 8 CPUs each, hardware threads apart as Linux numbers them, and one GPU for each of `numa`."""
    for node, cpus in enumerate(("0-3,8-11", "4-7,12-15", "")):  # the third is a GPU's own memory
        folder = root / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{cpus}\n")
    (root / "dev").mkdir()
    for number, (node, model) in enumerate(zip(numa, models, strict=False)):
        address = f"0000:{number}B:00.0"
        (root / f"dev/nvidia{number}").touch()
        facts = root / f"proc/driver/nvidia/gpus/{address}/information"
        facts.parent.mkdir(parents=True)
        facts.write_text(f"Model: \t\t {model}\nGPU UUID: \t GPU-{number}a\nDevice Minor: \t {number}\n")
        device = root / f"sys/bus/pci/devices/{address.lower()}/numa_node"
        device.parent.mkdir(parents=True)
        device.write_text(f"{node}\n")
    return root


NODE_0, NODE_1 = frozenset({0, 1, 2, 3, 8, 9, 10, 11}), frozenset({4, 5, 6, 7, 12, 13, 14, 15})


@pytest.mark.parametrize(
    ("environ", "allowed", "place"),
    [
        ({}, ALL, Place(NODE_0, 0)),
        ({"LOCAL_RANK": "1"}, ALL, Place(NODE_0, 0)),
        ({"LOCAL_RANK": "2"}, ALL, Place(NODE_1, 1)),
        ({"LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "3,2"}, ALL, Place(NODE_1, 1)),
        ({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "GPU-3a,GPU-0a"}, ALL, Place(NODE_0, 0)),
        ({"LOCAL_RANK": "2"}, ALL - {4, 12}, Place(NODE_1 - {4, 12}, 1)),  # srun or a cgroup took a core away
        ({"LOCAL_RANK": "2"}, {4, 12}, Place(why_not="it is bound to CPUs of node 1 already")),
        ({"LOCAL_RANK": "2"}, {0, 1}, Place(why_not="it is bound to CPUs of node 0 already")),
        ({"LOCAL_RANK": "2", "FTSYS_NUMA": "0"}, ALL, Place(why_not="FTSYS_NUMA=0")),
        ({"LOCAL_RANK": "4"}, ALL, Place(why_not="the GPU's PCI address is not known")),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1"}, ALL, Place(why_not="the GPU's PCI address is not known")),
    ],
)
def test_a_rank_goes_to_its_gpus_node(environ: dict[str, str], allowed: set[int], place: Place, tmp_path: Path) -> None:
    assert place_of(environ, allowed, machine(tmp_path)) == place


def test_one_node_needs_no_binding_and_no_word(tmp_path: Path) -> None:
    machine(tmp_path)
    (tmp_path / "sys/devices/system/node/node1/cpulist").write_text("\n")
    assert place_of({}, ALL, tmp_path) == Place()


def test_a_node_that_the_system_does_not_tell(tmp_path: Path) -> None:
    found = place_of({}, ALL, machine(tmp_path, numa=(-1,)))
    assert found == Place(why_not="GPU 0000:0b:00.0: the system does not tell its node")


def test_gpus_of_other_jobs_do_not_count(tmp_path: Path) -> None:
    """In a job whose cgroup opens GPUs 2 and 3 only, CUDA numbers them 0 and 1; the driver lists all."""
    machine(tmp_path)
    for number in (0, 1):
        (tmp_path / f"dev/nvidia{number}").unlink()
    assert place_of({"LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "0,1"}, ALL, tmp_path) == Place(NODE_1, 1)


@pytest.mark.parametrize(("order", "node"), [({}, -1), ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0)])
def test_the_order_of_different_gpus_must_be_known(order: dict[str, str], node: int, tmp_path: Path) -> None:
    assert place_of(order, ALL, machine(tmp_path, models=(T4, H100, H100, H100))).node == node


def test_the_process_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    one = frozenset({min(before)})
    monkeypatch.setattr("ftsys.train.perf.numa.place_of", lambda environ, allowed: Place(one, 0))
    asked: list[int] = []

    def prefer(node: int) -> bool:
        asked.append(node)
        return True

    monkeypatch.setattr("ftsys.train.perf.numa._prefer_memory_of", prefer)
    try:
        assert bind_near_gpu({}) == "bound to 1 CPUs of NUMA node 0, next to GPU 0; its memory preferred"
        assert (os.sched_getaffinity(0), asked) == (one, [0])
    finally:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), before)


def test_memory_of_a_node_is_preferred_or_left() -> None:
    """In a process of its own: a container may forbid the call, and then it must say so, not fail."""
    import subprocess
    import sys

    code = "from ftsys.train.perf.numa import _prefer_memory_of as p; print(p(0), p(-1), p(5000))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout in ("True False False\n", "False False False\n")
