"""Tests the predicted time of a step on known GPUs, and the choice of CUDA graphs that follows from it."""

from typing import Any

import pytest

from ftsys.config import build_run
from launcher.planner.cost.activations import MicroBatch
from launcher.planner.cost.launches import GRAPH_LAUNCHES, LAUNCH_SECONDS, LAUNCHES, step_launches, update_launches
from launcher.planner.cost.memory import Setting
from launcher.planner.cost.step_time import UTILISATION, Links, operations, step_time
from launcher.planner.gpus import GPUS
from launcher.planner.model_shape import model_shape
from launcher.planner.plan import World, make_plan

BASE = model_shape({"model_type": "bert"}, 2)
LARGE = model_shape(
    {"model_type": "bert", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
     "num_attention_heads": 16}, 2
)  # fmt: skip
MRPC = MicroBatch(32 * 53, 53)
SETTING = Setting("none", 0, "bf16", "none", False, 1, "cuda")


def test_launches_of_a_step_add_up() -> None:
    passes = LAUNCHES["bert"].passes(12, recomputed=False)
    assert step_launches(BASE, 2, recomputed=False) == 2 * passes + update_launches(BASE)
    more = 2 * 12 * LAUNCHES["bert"].forward_layer
    assert step_launches(BASE, 2, recomputed=True) == step_launches(BASE, 2, recomputed=False) + more
    assert step_launches(BASE, 2, recomputed=False, graphs=True) == 2 * GRAPH_LAUNCHES + update_launches(BASE)


@pytest.mark.parametrize("name", ["t4-16g", "a10-24g", "l40s-48g", "a100-80g", "h100-80g", "h200-141g"])
def test_the_longer_of_launches_and_computation_counts(name: str) -> None:
    gpu = GPUS[name]
    for shape in (BASE, LARGE):
        time = step_time(shape, MRPC, 1, SETTING, Links(gpu, 1))
        products = operations(shape, MRPC, False) / (gpu.rate_16 * UTILISATION)
        assert time.computing == pytest.approx(products + shape.parameters * 28 / gpu.memory_bandwidth)
        assert time.launching == pytest.approx(step_launches(shape, 1, False) * LAUNCH_SECONDS)
        assert time.seconds() == max(time.computing, time.launching)
        assert time.computing <= time.seconds(graphs=True) <= time.seconds()


def test_slower_gpus_take_longer() -> None:
    names = ("h200-141g", "h100-80g", "a100-80g", "l40s-48g", "a10-24g", "t4-16g")
    times = [step_time(LARGE, MicroBatch(16_384, 128), 1, SETTING, Links(GPUS[name], 1)).seconds() for name in names]
    assert times[0] <= times[1] < times[2] < times[4] < times[5]
    assert times[3] < times[4]


@pytest.mark.parametrize(
    ("sections", "gpu", "ranks", "graphs", "why"),
    [
        ({"data": {"max_length": 16}}, "h100-80g", 1, True, "ms for"),
        ({}, "t4-16g", 1, False, ""),
        ({"data": {"max_length": 512}, "batch": {"global_size": 128}}, "h100-80g", 1, False, "the host needs"),
        ({}, "h100-80g", 2, False, "it has 2 ranks"),
        ({}, "", 1, True, "a pass becomes one launch"),
        ({"engine": {"cuda_graphs": False}}, "h100-80g", 1, False, "engine.cuda_graphs = false"),
        ({"batch": {"global_tokens": 4096}}, "h100-80g", 1, False, "batches of many sizes"),
    ],
)
def test_graphs_where_the_host_is_slower(
    sections: dict[str, Any], gpu: str, ranks: int, graphs: bool, why: str
) -> None:
    run = build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, "data": {"max_length": 64}, **sections})
    known = GPUS[gpu].memory if gpu else None
    world = World(ranks, 1, ranks, "cuda", bf16_supported=True, gpu=gpu, device_memory=known)
    plan = make_plan(run, world, 3668, model=BASE)
    assert plan.cuda_graphs is graphs
    assert why in plan.reasons["cuda_graphs"]
