"""Tests two ranks on fake GPUs: DDP, the agreement to stop, and what a step waits for. Collectives go over gloo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from ftsys.train.perf.cuda_graphs import PassGraphs
from ftsys.train.perf.late_reduction import reduce_gradients
from ftsys.train.trainer import training_step
from tests.distributed.tiny_run import make_store, make_trainer, tiny_bert
from tests.distributed.worlds import World
from tests.fake_device.reach import following, missed

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


def train_by_graphs(store: Path, scratch: Path, recording: bool) -> dict[str, Any]:
    """Train with CUDA graphs under DDP; or with the same sizes of batches, but nothing recorded or reduced late."""
    from tests.fake_device.cuda_api import fake_gpu
    from tests.fake_device.tiny_gpu import gpu_trainer

    with pytest.MonkeyPatch.context() as patch, fake_gpu(count=2) as ledger:
        if not recording:
            patch.setattr(PassGraphs, "_record", lambda *args: None)
            patch.setattr(training_step, "inside_ddp", lambda model: model)
        options = {"model": tiny_bert(dropout=0.1), "precision": "bf16", "cuda_graphs": True, "max_steps": 24}
        with following(__file__) as lines:
            trainer, waits = gpu_trainer(store, scratch, ledger, logging_steps=1, ddp_bucket_cap_mb=1, **options)
            trainer.train()
        graphs = trainer.parts.step.graphs
        return {
            "recorded": (type(trainer.model_wrapped).__name__, graphs.eager_because, len(graphs.recorded) > 0),
            "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line],
            "missed": missed(lines),
            "waits": waits.of_step[-1],
            "launches": min(waits.launches),
            "weights": {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()},
        }


def test_recorded_passes_under_ddp_learn_the_same(world: Callable[[int], World], tmp_path: Path) -> None:
    store = make_store(tmp_path / "stores")
    recorded, plain = (world(2).run(train_by_graphs, store, tmp_path, recording) for recording in (True, False))
    assert [each["recorded"] for each in recorded] == [("DistributedDataParallel", None, True)] * 2
    assert [(each["waits"], each["missed"]) for each in recorded] == [([], []), ([], [])]
    for other in (recorded[1], *plain):
        assert other["losses"] == recorded[0]["losses"]
        for name, weight in recorded[0]["weights"].items():
            assert torch.equal(other["weights"][name], weight), name
    assert recorded[0]["launches"] < plain[0]["launches"] / 2


def gradients_reduced_late_and_by_ddp() -> list[bool]:
    """Return, for each of three steps, whether both ways give the same bits; the first one settles DDP's buckets."""

    def wrapped() -> DistributedDataParallel:
        torch.manual_seed(1)
        layers = [torch.nn.Linear(32, 32) for _ in range(6)]
        return DistributedDataParallel(torch.nn.Sequential(*layers), bucket_cap_mb=0.01)

    by_ddp, late, same = wrapped(), wrapped(), list[bool]()
    for step in range(3):
        torch.manual_seed(10 * step + torch.distributed.get_rank())
        rows = torch.randn(4, 32)
        for model in (by_ddp, late):
            model.zero_grad(set_to_none=True)
        by_ddp(rows).square().sum().backward()
        (late.module if step else late)(rows).square().sum().backward()
        if step:
            reduce_gradients(late)
        pairs = zip(by_ddp.parameters(), late.parameters(), strict=True)
        same.append(all(torch.equal(one.grad, other.grad) for one, other in pairs))
    return same


def test_late_reduction_sums_in_ddps_order(world: Callable[[int], World]) -> None:
    assert world(3).run(gradients_reduced_late_and_by_ddp) == [[True] * 3] * 3


def exchange_over_nccl() -> list[Any]:
    """Exchange values as under NCCL, which takes tensors of the GPU alone; returns what arrived, and devices."""
    from torch import distributed

    from ftsys.distributed import all_gather_json, broadcast_json, rank
    from tests.fake_device.cuda_api import fake_gpu

    sent: list[str] = []
    with fake_gpu(count=2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "get_backend", lambda: "nccl")
        for name in ("broadcast", "all_gather"):
            patch.setattr(distributed, name, _noting(getattr(distributed, name), sent))
        torch.cuda.set_device(rank())
        return [broadcast_json([rank(), "x"]), all_gather_json({"rank": rank()}), sorted(set(sent))]


def _noting(collective: Callable[..., Any], sent: list[str]) -> Callable[..., Any]:
    def call(first: Any, second: Any) -> Any:
        sent.extend(part.device.type for each in (first, second) for part in _tensors(each))
        return collective(first, second)

    return call


def _tensors(argument: Any) -> list[torch.Tensor]:
    return [argument] if isinstance(argument, torch.Tensor) else argument if isinstance(argument, list) else []


def test_messages_lie_on_the_gpu_where_the_backend_needs_it(world: Callable[[int], World]) -> None:
    assert world(2).run(exchange_over_nccl) == [[[0, "x"], [{"rank": 0}, {"rank": 1}], ["cuda"]]] * 2
