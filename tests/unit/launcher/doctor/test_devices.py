"""Tests the doctor's checks of devices: GPUs, number formats, and the run's plan."""

import pytest

from launcher.doctor.checks import run_checks
from tests.unit.launcher.doctor.made_up_facts import GPU, Groups, Harm, bad, cluster, put, run_of

BROKEN = {**GPU, "error": "no kernel image is available"}
A100 = {**GPU, "name": "A100"}


def test_good_gpus() -> None:
    found = {each.what: each for each in run_checks(cluster(gpus=4))}
    assert found["gpus"].value == "4 x H100 on node1, node2"
    assert found["plan"].value == "8 cuda rank(s), ddp, ZeRO 0, bf16"


def test_fp16_on_a_cpu_and_fewer_examples_than_ranks() -> None:
    run = run_of(engine={"precision": "fp16"}, batch={"global_size": 4})
    found = bad(cluster(run=run, ranks_per_node=4))
    assert [(each.severity, each.what) for each in found] == [("error", "plan")] * 2
    assert "fp16" in found[0].value
    assert "fewer examples in a step than there are ranks (8)" in found[1].value
    assert found[1].advice.startswith("the smallest that works is 8")


def test_bf16_on_some_nodes_only() -> None:
    (found,) = bad(cluster(put("node2", "device/cpu_bf16", False)))
    assert (found.severity, found.what) == ("error", "precision")
    assert "no bf16 on node2, bf16 on the others" in found.value
    (found,) = bad(cluster(put("node2", "device/bf16", False), gpus=1, run=run_of(engine={"precision": "bf16"})))
    assert (found.severity, found.what) == ("warning", "precision")
    assert 'or "fp16"' in found.advice


def test_cpus_without_bf16_are_planned_for_as_such() -> None:
    def old(nodes: dict[str, Groups]) -> None:
        for facts in nodes.values():
            facts["device"]["cpu_bf16"] = False

    found = {each.what: each.value for each in run_checks(cluster(old))}
    assert found["plan"] == "2 cpu rank(s), ddp, ZeRO 0, fp32"
    assert bad(cluster(old)) == []


def busy(nodes: dict[str, Groups]) -> None:
    nodes["node2"]["device"]["driver"][0] |= {"processes": "python (process 77)", "memory.used": "30000"}


@pytest.mark.parametrize(
    ("harm", "severity", "value"),
    [
        (put("node2", "device/gpus", [GPU]), "error", "the nodes have different numbers of GPUs: 2 x H100 on "
         "node1; 1 x H100 on node2"),
        (put("node2", "device/gpus", [A100] * 2), "warning", "different models: 2 x H100 on node1; 2 x A100"),
        (put("node2", "device/gpus", [GPU, BROKEN]), "error", "node2: a small matrix product fails on GPU 1: no "
         "kernel image"),
        (busy, "warning", "node2: GPU 0 is busy, 30000 of 81559 MiB used by python (process 77)"),
        (put("node1", "device/driver/0/memory.used", "2000"), "warning", "used by processes of another container"),
    ],
)  # fmt: skip
def test_gpus_that_are_missing_unlike_or_busy(harm: Harm, severity: str, value: str) -> None:
    found = bad(cluster(harm, gpus=2))
    assert (found[0].severity, found[0].what) == (severity, "gpus")
    assert value in found[0].value


def test_a_busy_gpu_that_takes_one_process_only_is_an_error() -> None:
    def harm(nodes: dict[str, Groups]) -> None:
        busy(nodes)
        nodes["node2"]["device"]["driver"][0]["compute_mode"] = "Exclusive_Process"

    assert [each.severity for each in bad(cluster(harm, gpus=2))] == ["error"]


def test_fewer_gpus_than_ranks_asked_for() -> None:
    found = bad(cluster(gpus=2, ranks_per_node=8))
    assert ("gpus", "2 GPU(s) on node1, node2 for 8 rank(s) on each node") in [
        (each.what, each.value) for each in found
    ]


def test_gpus_that_torch_does_not_see() -> None:
    def harm(nodes: dict[str, Groups]) -> None:
        for facts in nodes.values():
            facts["device"] |= {"gpus": [], "cuda_build": None}

    found = bad(cluster(harm, gpus=1))
    assert "the driver lists 1 GPU(s), torch 2.13.0+cpu sees none: it is built for CPUs" in found[0].value
    assert bad(cluster(harm, gpus=1, cpu=True)) == []


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("Triton needs a C compiler, and there is neither gcc nor clang", "install gcc there"),
        ("Triton needs Python's header files, and /usr/include/Python.h does not exist", "python3-dev"),
        ("the GPU has compute capability 7.5, below 8.0", "compute capability 8.0 or higher"),
        ("Triton is not installed", "torch's CUDA build"),
    ],
)
def test_a_node_that_cannot_compile_the_kernels(reason: str, advice: str) -> None:
    def harm(nodes: dict[str, Groups]) -> None:
        for facts in nodes.values():
            facts["device"]["triton"] = None
        nodes["node2"]["device"]["triton"] = reason

    (found,) = bad(cluster(harm, gpus=1))
    assert (found.severity, found.what) == ("warning", "kernels")
    assert found.value == f"no rank uses the Triton kernels: {reason} on node2"
    assert advice in found.advice
    (found,) = bad(cluster(harm, gpus=1, run=run_of(engine={"kernels": "triton"})))
    assert (found.severity, found.value.partition(":")[0]) == ("error", "the run is refused")
    assert bad(cluster(harm, gpus=1, cpu=True)) == []


def test_a_cache_of_kernels_that_others_may_write_to() -> None:
    reason = "'/shared' holds code that would be run, but other users may write to it (mode 777). Remove it, or set ..."

    def harm(nodes: dict[str, Groups]) -> None:
        for facts in nodes.values():
            facts["device"]["triton"] = reason

    (found,) = bad(cluster(harm, gpus=1))
    assert (found.severity, found.value.partition(":")[0]) == ("error", "the run is refused")
    assert found.advice == "set TRITON_CACHE_DIR to a folder of your own."
