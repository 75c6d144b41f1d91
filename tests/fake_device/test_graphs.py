"""Tests recorded passes on a fake GPU, with torch's recorder: the same training as without, in few launches."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.tiny_run import make_store, tiny_bert
from tests.fake_device.cuda_api import fake_gpu
from tests.fake_device.reach import following, missed
from tests.fake_device.tiny_gpu import gpu_trainer

STEPS = 24


def train(store: Path, scratch: Path, graphs: bool, precision: str) -> tuple[Any, int, list[str]]:
    """Train with dropout; returns the trainer, the fewest launches of a step, and the waits of the last one."""
    with fake_gpu() as ledger:
        options = {"model": tiny_bert(dropout=0.1), "precision": precision, "max_steps": STEPS, "cuda_graphs": graphs}
        trainer, waits = gpu_trainer(store, scratch, ledger, **options)
        trainer.train()
    return trainer, min(waits.launches), waits.of_step[-1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_by_graphs_is_the_same_in_few_launches(tmp_path: Path, precision: str) -> None:
    store = make_store(tmp_path / "stores")
    plain = train(store, tmp_path, False, precision)
    with following(__file__) as lines:
        recorded = train(store, tmp_path, True, precision)
    assert missed(lines) == []
    graphs = recorded[0].parts.step.graphs
    assert graphs.eager_because is None
    assert graphs.recorded
    assert recorded[2] == []
    tolerance = 1e-4 if precision == "fp32" else 5e-2
    for name, weight in plain[0].model.state_dict().items():
        if not name.endswith("key.bias"):  # its gradient is 0 but for rounding, which AdamW scales up to a full step
            torch.testing.assert_close(recorded[0].model.state_dict()[name], weight, rtol=tolerance, atol=tolerance)
    assert recorded[1] < plain[1] / 3, "in a step whose batch has a size that was recorded"
