"""Tests DeepSpeed through the branches for CUDA on fake GPUs: training, evaluation, saving and resuming with ZeRO."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.test_resume import CUT_AT, STEPS, train_part
from tests.distributed.tiny_run import ROWS, make_store, reference_losses, train_and_evaluate
from tests.distributed.worlds import World

ON_GPU = {"use_cpu": False}


def train_on_gpu(*given: Any) -> dict[str, Any]:
    """Run `train_part` on the fake GPU of this rank."""
    from tests.fake_device.deepspeed_gpu import deepspeed_gpu

    with deepspeed_gpu() as ledger:
        return train_part(*given) | {"launches": ledger.launches.total()}


def evaluate_on_gpu(*given: Any) -> dict[str, Any]:
    """Run `train_and_evaluate` on the fake GPU of this rank."""
    from tests.fake_device.deepspeed_gpu import deepspeed_gpu

    with deepspeed_gpu():
        return train_and_evaluate(*given)


def test_a_run_resumes_where_it_was_cut(world: Callable[[int], World], tmp_path: Path) -> None:
    store, options = make_store(tmp_path / "stores"), {"stage": 2, "precision": "bf16", **ON_GPU}
    whole = world(2).run(train_on_gpu, store, tmp_path / "whole", options, None, False)
    world(2).run(train_on_gpu, store, tmp_path / "cut", options, CUT_AT, False)
    resumed = world(2).run(train_on_gpu, store, tmp_path / "cut", options, None, True)[0]
    assert all(each["launches"] > 1000 for each in whole)
    assert resumed["step"] == STEPS
    assert resumed["losses"] == whole[0]["losses"]
    assert all(torch.equal(resumed["weights"][name], tensor) for name, tensor in whole[0]["weights"].items())


@pytest.mark.parametrize(("stage", "precision"), [(0, "bf16"), (0, "fp16"), (1, "bf16"), (2, "fp16")])
def test_it_learns_what_a_plain_loop_learns(
    world: Callable[[int], World], tmp_path: Path, stage: int, precision: str
) -> None:
    store = make_store(tmp_path / "stores")
    found = world(2).run(evaluate_on_gpu, store, tmp_path, {"stage": stage, "precision": precision, **ON_GPU})
    losses, _ = reference_losses(store, 5, 10, 3)
    for each in found:
        assert each["losses"] == pytest.approx(losses, rel=2e-2)
        assert each["metrics"] == found[0]["metrics"]
        assert each["logits"].shape == (ROWS["test"], 2)
