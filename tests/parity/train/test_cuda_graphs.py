"""Tests recorded passes against eager passes: losses, gradients, weights. A fake recorder stands in for CUDA graphs.

At a replay, the fake runs the recorded function on the memory of the recording, as a CUDA graph does; tests/gpu has the
real one. Another test checks that no pass synchronizes with the device.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.parallel import DistributedDataParallel

from ftsys.data.batching.collate import PackedBatch, tensors_of
from ftsys.data.batching.loader import LOCAL_BATCH
from ftsys.errors import ConfigError, FtsysError
from ftsys.kernels import select
from ftsys.kernels.dropout import mask_tables
from ftsys.models.inputs import dropout_keys
from ftsys.models.packed import PackedView
from ftsys.train.perf.cuda_graphs import PassGraphs, Results, check_recordable
from ftsys.train.perf.late_reduction import why_not_late
from ftsys.train.trainer import training_step
from tests.distributed.tiny_run import make_store, make_trainer, tiny_bert


class Double:
    """Run nothing until the replay, which writes its results to the tensors that the recording returned."""

    def __init__(self, waits: str | None = None) -> None:
        self.waits = waits

    def watched(self, passes: Callable[[], Results]) -> tuple[Results, str | None]:
        return passes(), self.waits

    def recorded(self, passes: Callable[[], Results]) -> tuple[Callable[[], object], Results]:
        results = torch.zeros(()), torch.zeros(11)

        def replay() -> None:
            for own, found in zip(results, passes(), strict=True):
                own.copy_(found)

        return replay, results


def train(folder: Path, graphs: bool, **settings: Any) -> Any:
    model = tiny_bert(dropout=0.1)
    trainer = make_trainer(make_store(folder.parent / f"{folder.name}-stores"), folder, model=model,
                           cuda_graphs=graphs, **settings)  # fmt: skip
    trainer.train()
    return trainer


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_by_recordings_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(training_step, "GpuRecorder", Double)
    monkeypatch.setattr(training_step, "check_recordable", lambda trainer: None)
    settings = {"precision": precision, "max_steps": 100}
    plain, recorded = (train(tmp_path / str(graphs), graphs, **settings) for graphs in (False, True))
    assert plain.parts.step.graphs is None
    assert recorded.parts.step.graphs.eager_because is None
    assert len(recorded.parts.step.graphs.recorded) >= 2
    losses = [[line["loss"] for line in trainer.state.log_history if "loss" in line] for trainer in (plain, recorded)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "fp32" else 5e-2)


class Counted:
    """Passes that add 1 to one gradient and a batch's first token to another; a third weight gets no gradient."""

    def __init__(self) -> None:
        self.model = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(2)) for _ in range(3)])

    def passes(self, batch: PackedBatch, keys_T: torch.Tensor, scale: torch.Tensor) -> Results:
        loss = (self.model[0].sum() + self.model[1].sum() * batch.input_ids_T[0]) * scale
        loss.backward()
        return loss.detach(), (batch.input_ids_T[:11] + keys_T[:11]).float()


def batch_of(token: int, tokens: int = 40) -> PackedBatch:
    ids, bounds = torch.full((tokens,), token), torch.arange(12).int()
    return PackedBatch(ids, ids, None, bounds, 24, torch.zeros(11), torch.arange(11), is_static=True)


def test_what_is_replayed_is_the_batch_at_hand_and_gradients_add_up() -> None:
    counted, one = Counted(), torch.ones(())
    graphs = PassGraphs(counted.model, counted.passes, Double())
    for step in range(4):
        graphs.begin_step()
        for token in (3, 5 + step):
            _, losses = graphs(batch_of(token), torch.full((40,), 100 * step), one)
            assert losses.tolist() == [token + 100 * step] * 11
        graphs(
            batch_of(7, tokens=41 + step), torch.zeros(41 + step, dtype=torch.int64), 2 * one
        )  # a size not met again
        gradients = [parameter.grad for parameter in counted.model]
        assert gradients[0] is not None
        assert gradients[1] is not None
        assert gradients[0].tolist() == [4.0, 4.0]
        assert gradients[1].tolist() == [3.0 + 5 + step + 14] * 2
        assert gradients[2] is None  # the optimizer would apply weight decay if it were zero
        counted.model.zero_grad(set_to_none=True)
    assert list(graphs.recorded) == [(40, 11, 24)]


def test_what_cannot_be_recorded_is_computed_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    counted = Counted()
    graphs = PassGraphs(counted.model, counted.passes, Double("the pass waits for the GPU in layout.py:66"))
    for step in range(4):
        graphs.begin_step()
        for tokens in (40, 41):
            _, losses = graphs(batch_of(3, tokens), torch.full((tokens,), step), torch.ones(()))
            assert losses[0] == 3 + step
        counted.model.zero_grad(set_to_none=True)
    assert not graphs.recorded
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == "cuda_graphs: passes are not recorded, because the pass waits for the GPU in layout.py:66"


class Broken(Double):
    """A recorder whose recording fails."""

    def recorded(self, passes: Callable[[], Results]) -> tuple[Callable[[], object], Results]:
        raise FtsysError("a pass could not be recorded: no")


def test_a_recording_that_fails_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    counted = Counted()
    graphs = PassGraphs(counted.model, counted.passes, Broken())
    for _ in range(5):
        graphs.begin_step()
        graphs(batch_of(3), torch.zeros(40, dtype=torch.int64), torch.ones(()))
        assert counted.model[0].grad is not None
        assert counted.model[0].grad.tolist() == [1.0, 1.0]
        counted.model.zero_grad(set_to_none=True)
    assert not graphs.recorded
    assert [record.getMessage() for record in caplog.records] == [
        "cuda_graphs: passes are not recorded, because a pass could not be recorded: no"
    ]


def test_sequences_that_may_be_longer_are_recorded_anew() -> None:
    counted, one, keys = Counted(), torch.ones(()), torch.zeros(40, dtype=torch.int64)
    graphs = PassGraphs(counted.model, counted.passes, Double())
    for longest in (24, 30, 24, 30, 24, 30):
        graphs(replace(batch_of(3), max_seqlen=longest), keys, one)
    assert sorted(graphs.recorded) == [(40, 11, 24), (40, 11, 30)]


def test_a_second_training_records_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_step, "GpuRecorder", Double)
    monkeypatch.setattr(training_step, "check_recordable", lambda trainer: None)
    trainer = train(tmp_path / "twice", graphs=True, max_steps=2)
    first = trainer.parts.step.graphs
    trainer.train()
    assert trainer.parts.step.graphs is not first


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"device": "cpu"}, "they run on cpu"),
        ({"world_size": 2}, "there are 2 ranks, and Linear does not reduce gradients by DDP's rules"),
        ({"deepspeed": True}, "DeepSpeed moves weights and gradients between them"),
        ({"scaler": object()}, "fp16 scales each loss by another factor"),
        ({"recomputes": True}, "activations are computed again"),
    ],
)
def test_each_reason_not_to_record_is_said(changed: dict[str, Any], why: str) -> None:
    found = {"device": "cuda", "world_size": 1, "deepspeed": False, "scaler": None, "recomputes": False, **changed}
    trainer: Any = SimpleNamespace(
        args=SimpleNamespace(device=torch.device(found["device"]), world_size=found["world_size"]),
        accelerator=SimpleNamespace(scaler=found["scaler"]),
        is_deepspeed_enabled=found["deepspeed"],
        model=SimpleNamespace(is_gradient_checkpointing=found["recomputes"]),
        model_wrapped=torch.nn.Linear(1, 1),
    )
    with pytest.raises(ConfigError, match=rf"cuda_graphs: passes cannot be recorded, because {why}\. Leave it out\."):
        check_recordable(trainer)


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("find_unused_parameters", "DDP looks for unused parameters"),
        ("static_graph", "DDP's graph is declared static"),
        ("gradient_as_bucket_view", "gradients are views of DDP's buckets"),
        ("", None),
    ],
)
def test_what_ddp_may_not_do_beside_recorded_passes(setting: str, why: str | None) -> None:
    names = ("find_unused_parameters", "static_graph", "gradient_as_bucket_view")
    model = object.__new__(DistributedDataParallel)
    vars(model).update({name: name == setting for name in names})
    found = why_not_late(model)
    assert found == why or (why is not None and found is not None and found.startswith(why))


def test_where_passes_cannot_be_recorded_a_script_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cuda_graphs: passes cannot be recorded, because they run on cpu"):
        train(tmp_path / "cpu", graphs=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_pass_asks_the_device_for_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """Fake tensors raise an error if a value is read; the attention, on a GPU in Triton, is left out."""

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *told: Any) -> torch.Tensor:
        return query + key + value

    monkeypatch.setitem(select.COMPUTED_BY, "triton", attention)
    monkeypatch.setattr(select, "_triton_takes_states", lambda states: True)
    monkeypatch.setattr(select, "_why_not", lambda name, device: None)
    trainer = make_trainer(make_store(tmp_path), tmp_path)
    item = next(iter(trainer.get_train_dataloader()))
    (batch,) = item[LOCAL_BATCH].micro_batches
    keys_T = dropout_keys(batch, 3, 0)
    assert keys_T is not None
    mask_tables.cache_clear()
    with FakeTensorMode() as mode:
        torch.set_default_dtype(getattr(torch, precision))
        model = tiny_bert(dropout=0.1).train()
        torch.set_default_dtype(torch.float32)
        trainer.parts.packing.view = PackedView(model, "triton")
        fake = replace(batch, **{name: mode.from_tensor(tensor) for name, tensor in tensors_of(batch).items()})
        keys_T = mode.from_tensor(keys_T)
        loss, losses_S = trainer.parts.step.passes(trainer, model, fake, keys_T, torch.ones(()))
        with pytest.raises(DataDependentOutputException):
            loss.item()
    mask_tables.cache_clear()
    assert losses_S.shape == batch.labels_S.shape
    assert all(parameter.grad is not None for parameter in model.parameters())
