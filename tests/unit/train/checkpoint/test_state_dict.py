"""The state of plain torch models and optimizers comes out whole and goes back bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adafactor, Adagrad, AdamW, Optimizer

from ftsys.errors import CheckpointError
from ftsys.train.checkpoint.catalog import Checkpoint
from ftsys.train.checkpoint.state_dict import export_state, import_state
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.writer import save_checkpoint
from tests.distributed.tiny import Tiny, adamw, differences, train_plain

Maker = Callable[[nn.Module], Optimizer]
Change = Callable[[FullState], object]
MAKERS: dict[str, Maker] = {
    "AdamW": adamw,
    "AdamW amsgrad": lambda model: AdamW(model.parameters(), lr=0.01, amsgrad=True),
    "AdamW with the rate in a tensor": lambda model: AdamW(model.parameters(), lr=torch.tensor(0.01)),
    "SGD": lambda model: SGD(model.parameters(), lr=0.01),
    "SGD with momentum": lambda model: SGD(model.parameters(), lr=0.01, momentum=0.9),
    "Adagrad": lambda model: Adagrad(model.parameters(), lr=0.01),
    "Adafactor": lambda model: Adafactor(model.parameters(), lr=0.01),
}


def made(make: Maker, seed: int, dtype: torch.dtype) -> tuple[Tiny, Optimizer]:
    torch.manual_seed(seed)
    model = Tiny().to(dtype)
    return model, make(model)


def trained(make: Maker = adamw, steps: int = 3) -> tuple[Tiny, Optimizer]:
    model, optimizer = made(make, 1, torch.float32)
    train_plain(model, optimizer, 0, steps)
    return model, optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_a_run_goes_on_bit_for_bit_from_the_file(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    model, optimizer = made(MAKERS[name], 1, dtype)
    train_plain(model, optimizer, 0, 3)
    path = save_checkpoint(tmp_path, 3, export_state(model, optimizer), {}, "mine", 1)
    train_plain(model, optimizer, 3, 6)
    fresh, fresh_optimizer = made(MAKERS[name], 2, dtype)
    import_state(fresh, fresh_optimizer, Checkpoint.open(path).load_state())
    train_plain(fresh, fresh_optimizer, 3, 6)
    assert differences(export_state(model, optimizer), export_state(fresh, fresh_optimizer)) == []


def test_the_state_is_a_copy_under_plain_names() -> None:
    model, optimizer = trained()
    state = export_state(torch.compile(model), optimizer)
    before = state.weights["body.weight"].clone()
    train_plain(model, optimizer, 3, 4)
    assert torch.equal(state.weights["body.weight"], before)
    assert not torch.equal(model.body.weight, before)
    assert list(state.weights) == [name for name, _ in model.named_parameters()]
    assert "decoder.weight" not in state.weights
    assert list(state.buffers) == ["seen"]
    assert state.buffers["seen"] == 3


def test_a_state_from_before_the_first_step_forgets_later_ones() -> None:
    model, optimizer = trained(steps=0)
    start = export_state(model, optimizer)
    assert start.moments == {}
    train_plain(model, optimizer, 0, 3)
    import_state(model, optimizer, start)
    assert not optimizer.state
    assert differences(export_state(model, optimizer), start) == []


def test_weights_alone_need_no_optimizer() -> None:
    state = export_state(trained()[0])
    other = Tiny()
    import_state(other, None, state)
    assert differences(export_state(other), state) == []
    assert other.decoder.weight is other.embed.weight


def test_flags_of_this_life_stay() -> None:
    model, optimizer = trained()
    other, other_optimizer = made(adamw, 2, torch.float32)
    for group in other_optimizer.param_groups:
        group.update(foreach=True, lr=5.0, betas=(0.1, 0.2))
    import_state(other, other_optimizer, export_state(model, optimizer))
    assert [group["foreach"] for group in other_optimizer.param_groups] == [True, True]
    assert [group["lr"] for group in other_optimizer.param_groups] == [group["lr"] for group in optimizer.param_groups]
    assert [group["betas"] for group in other_optimizer.param_groups] == [(0.8, 0.95), (0.8, 0.95)]


def test_unused_parameters_keep_no_state() -> None:
    model, optimizer = trained()
    state = export_state(model, optimizer)
    for key in state.moments:
        del state.moments[key]["body.bias"]
    del state.numbers["body.bias"]
    import_state(model, optimizer, state)
    assert model.body.bias not in optimizer.state
    assert differences(export_state(model, optimizer), state) == []


def test_another_model_is_refused_and_nothing_changed() -> None:
    state = export_state(*trained())
    model, optimizer = made(adamw, 2, torch.float32)
    before = export_state(model, optimizer)
    state.weights["stranger"] = state.weights.pop("head.bias")
    state.weights["head.weight"] = torch.zeros(3, 11)
    with pytest.raises(CheckpointError) as caught:
        import_state(model, optimizer, state)
    assert "1 ('head.bias') missing, 1 ('stranger') unknown" in str(caught.value)
    assert "'head.weight' has shape (3, 11) in the checkpoint and (2, 11) in the model" in str(caught.value)
    assert not differences(FullState(weights=before.weights), FullState(weights=export_state(model).weights))


def test_another_optimizer_is_refused() -> None:
    state = export_state(*trained(MAKERS["SGD with momentum"]))
    with pytest.raises(CheckpointError, match=r"holds 1 \('momentum_buffer'\) .* AdamW keeps 2"):
        import_state(*made(adamw, 2, torch.float32), state)


MISFITS: dict[str, tuple[Change, str]] = {
    "a moment too short": (lambda state: put(state, torch.zeros(3)), "shape (3,) in the checkpoint and (5,)"),
    "a moment too long": (lambda state: put(state, torch.zeros(6)), "shape (6,) in the checkpoint and (5,)"),
    "a moment of one number": (lambda state: put(state, torch.zeros(())), "shape () in the checkpoint and (5,)"),
    "a moment of another form": (
        lambda state: put(state, torch.zeros(5, 1)),
        "shape (5, 1) in the checkpoint and (5,)",
    ),
    "whole numbers": (lambda state: put(state, torch.zeros(5).long()), "type torch.int64 in the checkpoint and"),
    "truths": (lambda state: put(state, torch.zeros(5).bool()), "type torch.bool in the checkpoint and torch.float32"),
    "a number for a moment": (
        lambda state: state.numbers["head.bias"].update(exp_avg=5.0),
        "'exp_avg' of 'head.bias' is a number in the checkpoint and a tensor in the optimizer",
    ),
    "weights of whole numbers": (
        lambda state: state.weights.update({"norm.weight": torch.ones(5).int()}),
        "'norm.weight' has type torch.int32 in the checkpoint and torch.float32 in the model",
    ),
    "a buffer of another shape": (
        lambda state: state.buffers.update(seen=torch.zeros(1).long()),
        "the buffer 'seen' has shape (1,) in the checkpoint and () in the model",
    ),
    "a buffer of another type": (
        lambda state: state.buffers.update(seen=torch.tensor(3.0)),
        "the buffer 'seen' has type torch.float32 in the checkpoint and torch.int64 in the model",
    ),
}


def put(state: FullState, tensor: torch.Tensor) -> None:
    state.moments["exp_avg"]["norm.bias"] = tensor


@pytest.mark.parametrize(("change", "said"), MISFITS.values(), ids=MISFITS)
def test_a_tensor_that_does_not_fit_is_refused_and_nothing_changed(change: Change, said: str) -> None:
    state = export_state(*trained())
    model, optimizer = made(adamw, 2, torch.float32)
    train_plain(model, optimizer, 0, 1)
    before = export_state(model, optimizer)
    change(state)
    with pytest.raises(CheckpointError) as caught:
        import_state(model, optimizer, state)
    assert said in str(caught.value)
    if "norm.bias" in str(caught.value):
        assert str(caught.value).startswith("'exp_avg' of 'norm.bias' in optimizer.safetensors has ")
    assert differences(export_state(model, optimizer), before) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_floating_types_are_converted(dtype: torch.dtype) -> None:
    state = export_state(*trained())
    put(state, torch.tensor([0.5, -1.0, 2.0, 0.0, 4.0], dtype=dtype))
    state.weights["norm.bias"] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=dtype)
    model, optimizer = made(adamw, 2, torch.float32)
    import_state(model, optimizer, state)
    moment = optimizer.state[model.norm.bias]["exp_avg"]
    assert (moment.dtype, moment.tolist()) == (torch.float32, [0.5, -1.0, 2.0, 0.0, 4.0])
    assert (model.norm.bias.dtype, model.norm.bias.tolist()) == (torch.float32, [1.0, 2.0, 3.0, 4.0, 5.0])


def test_a_factored_moment_has_its_own_shape() -> None:
    state = export_state(*trained(MAKERS["Adafactor"]))
    model, optimizer = made(MAKERS["Adafactor"], 2, torch.float32)
    import_state(model, optimizer, state)
    row = state.moments["row_var"]["body.weight"]
    state.moments["row_var"]["body.weight"] = row[:-1]
    with pytest.raises(CheckpointError, match=r"'row_var' of 'body.weight' .* has shape \(5, 1\) .* and \(6, 1\)"):
        import_state(model, optimizer, state)


def test_joined_groups_with_different_rates_are_refused() -> None:
    state = export_state(*trained())
    model, _ = made(adamw, 2, torch.float32)
    with pytest.raises(CheckpointError, match=r"group 0 joins parameters .* different lr, weight_decay"):
        import_state(model, AdamW(model.parameters(), lr=0.1), state)


def test_no_state_is_told() -> None:
    with pytest.raises(CheckpointError, match="holds no state"):
        import_state(Tiny(), None, None)
