"""Tests two ranks on fake GPUs: DDP, the agreement to stop, and what a step waits for. Collectives go over gloo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.distributed.tiny_run import make_store, make_trainer, tiny_bert
from tests.distributed.worlds import World

STEPS = 6


def train_on_gpu(store: Path, scratch: Path, options: dict[str, Any], stop_at: int | None) -> dict[str, Any]:
    """Train on a fake GPU of this rank; rank 1 alone is told to stop in step `stop_at`, counted from 0."""
    from transformers import TrainerCallback

    from tests.fake_device.cuda_api import fake_gpu
    from tests.fake_device.tiny_gpu import gpu_trainer

    class Signal(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == stop_at and args.process_index == 1:
                stopping.interruption.wanted = True

    with fake_gpu(count=2) as ledger:
        trainer, waits = gpu_trainer(store, scratch, ledger, model=tiny_bert(), max_steps=STEPS, **options)
        stopping = waits.stopping
        trainer.add_callback(Signal())
        trainer.train()
        wrapped = trainer.model_wrapped
        return {
            "device": str(trainer.args.device),
            "waits": [wait for step in waits.of_step[3:] for wait in step],
            "steps": trainer.state.global_step,
            "agreed": stopping.agreed,
            "broadcasts": isinstance(wrapped, DistributedDataParallel) and wrapped.broadcast_buffers,
            "weights": {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()},
        }


def train_on_cpu(store: Path, scratch: Path, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    trainer = make_trainer(store, scratch, model=tiny_bert(), max_steps=STEPS, global_batch_size=8, **options)
    trainer.train()
    return dict(trainer.model.state_dict())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_ranks_wait_for_nothing_and_learn_the_same(
    world: Callable[[int], World],
    tmp_path: Path,
    precision: str,
) -> None:
    store, options = make_store(tmp_path / "stores"), {"precision": precision, "kernels": "padded"}
    first, second = world(2).run(train_on_gpu, store, tmp_path / "gpu", options, None)
    on_cpu = world(2).run(train_on_cpu, store, tmp_path / "cpu", options)[0]
    assert [found["device"] for found in (first, second)] == ["cuda:0", "cuda:1"]
    assert [found["waits"] for found in (first, second)] == [[], []]
    assert not first["broadcasts"]
    for name, weight in on_cpu.items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        torch.testing.assert_close(
            first["weights"][name], weight, rtol=1e-4, atol=1e-5 if precision == "fp32" else 1e-2
        )


def test_all_ranks_stop_after_the_same_step(world: Callable[[int], World], tmp_path: Path) -> None:
    found = world(2).run(train_on_gpu, make_store(tmp_path / "stores"), tmp_path, {}, 2)
    assert [(each["steps"], each["agreed"]) for each in found] == [(4, True)] * 2  # one step later than on a CPU
    (last,) = {each["steps"] for each in world(2).run(train_on_gpu, make_store(tmp_path / "again"), tmp_path, {}, 5)}
    assert last == STEPS
