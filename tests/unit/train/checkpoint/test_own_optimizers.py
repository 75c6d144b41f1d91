"""Tests the state of optimizers of one's own: counters of any type, flat owners, and what is told about misfits."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adafactor, Optimizer

from ftsys.errors import CheckpointError
from ftsys.train.checkpoint import state_dict
from ftsys.train.checkpoint.optimizer_layout import (
    Layout,
    Owner,
    Piece,
    moments_of,
    named_parameters,
    numbers_of,
    plain_layout,
)
from ftsys.train.checkpoint.state_dict import _some, export_state, import_state
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.transfer import Source


class Own(Optimizer):
    """Keeps counters of every type beside one moment of the parameter's shape."""

    def __init__(self, parameters: Any, lr: Any = 0.5) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        """Take a step, and count it in each way."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    start = {"step": 0, "rate": 0.0, "used": True, "scale": torch.zeros(()), "sum": parameter * 0}
                    state = self.state[parameter] = self.state[parameter] or start
                    state["step"] += 1
                    state["rate"] += 0.5
                    state["scale"] += 2
                    state["sum"] += parameter.grad
                    parameter.data -= group["lr"] * parameter.grad


def trained(seed: int, steps: int) -> tuple[nn.Linear, Own]:
    torch.manual_seed(seed)
    model = nn.Linear(3, 1)
    optimizer = Own(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


def test_counters_of_every_type_come_back_in_their_type() -> None:
    model, optimizer = trained(0, 3)
    state = export_state(model, optimizer)
    assert state.numbers == {name: {"step": 3, "rate": 1.5, "scale": 6.0} for name in ("weight", "bias")}
    assert {kind: set(tensors) for kind, tensors in state.moments.items()} == {"sum": {"weight", "bias"}}
    other, own = trained(1, 1)
    import_state(other, own, state)
    found = own.state[other.weight]
    assert (found["step"], type(found["step"]), found["rate"], found["used"]) == (3, int, 1.5, True)
    assert (type(found["scale"]), found["scale"].item()) == (torch.Tensor, 6.0)
    assert torch.equal(found["sum"], optimizer.state[model.weight]["sum"])
    assert torch.equal(other.weight, model.weight)


def test_a_moment_of_one_element_is_no_counter_unless_it_is_the_step() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = Own([parameter])
    optimizer.state[parameter] = {"sum": torch.ones(1), "step": torch.ones(1), "other": torch.ones(()), "flag": False}
    owner = Owner(parameter, optimizer, 0)
    assert list(moments_of(owner)) == ["sum"]
    assert numbers_of(owner) == {"step": 1.0, "other": 1.0}


@pytest.mark.parametrize("rate", [0.5, torch.tensor(0.5)], ids=str)
def test_a_fresh_optimizer_is_given_its_state_and_nothing_else_of_it_changes(rate: Any) -> None:
    state = export_state(*trained(0, 3))
    model = nn.Linear(3, 1)
    groups = [{"params": [model.weight]}, {"params": [model.bias]}]
    optimizer = Own(groups, rate)
    gradient = model.weight.grad = torch.ones(1, 3)
    layout, source = plain_layout(model, optimizer), Source(state)
    before = model.weight.detach().clone()
    for index in range(2):
        state_dict._prepare_owner(layout, index, source)
    assert torch.equal(model.weight, before)
    assert model.weight.grad is gradient
    assert model.bias.grad is None
    assert [group["params"] for group in optimizer.param_groups] == [[model.weight], [model.bias]]
    assert all(group["lr"] is rate for group in optimizer.param_groups)
    assert set(optimizer.state) == {model.weight, model.bias}


def test_an_exported_state_shares_no_memory_with_the_model() -> None:
    model, optimizer = trained(0, 1)
    model.register_buffer("seen", torch.ones(2))
    model.bias.requires_grad_(False)
    state = export_state(model, optimizer)
    expected = [state.weights["weight"].clone(), state.weights["bias"].clone(), state.moments["sum"]["weight"].clone()]
    with torch.no_grad():
        for tensor in (model.weight, model.bias, model.seen, optimizer.state[model.weight]["sum"]):
            tensor.add_(1)
    assert torch.equal(state.weights["weight"], expected[0])
    assert torch.equal(state.weights["bias"], expected[1])
    assert torch.equal(state.moments["sum"]["weight"], expected[2])
    assert state.buffers["seen"].tolist() == [1.0, 1.0]


def flat() -> tuple[Layout, Own]:
    """Return the layout of two parameters in one flat owner, as DeepSpeed has them, after a step."""
    module = nn.ParameterDict({"a": nn.Parameter(torch.zeros(2)), "b": nn.Parameter(torch.zeros(3))})
    master = nn.Parameter(torch.arange(5.0))
    optimizer = Own([master])
    master.grad = torch.ones(5)
    optimizer.step()
    pieces = [[Piece("a", 0, 2, 0, 0), Piece("b", 0, 3, 0, 2)]]
    return Layout(
        module, named_parameters(module), [Owner(master, optimizer, 0)], pieces, False, [optimizer]
    ), optimizer


def test_parameters_of_a_flat_owner_are_read_one_by_one() -> None:
    (layout, _), state = flat(), FullState()
    state_dict._read_owner(layout, 0, state)
    assert {name: tensor.tolist() for name, tensor in state.weights.items()} == {"a": [-0.5, 0.5], "b": [1.5, 2.5, 3.5]}
    assert {name: len(tensor) for name, tensor in state.moments["sum"].items()} == {"a": 2, "b": 3}
    assert state.numbers["b"] == {"step": 1, "rate": 0.5, "scale": 2.0}


def test_a_flat_owner_whose_pieces_are_not_all_there_is_told() -> None:
    layout, _ = flat()
    layout.pieces[0][1] = Piece("b", 0, 2, 0, 2)
    with pytest.raises(CheckpointError, match="the ranks hold only parts of 'b'"):
        state_dict._read_owner(layout, 0, FullState())


def test_a_moment_of_many_parameters_at_once_is_refused() -> None:
    layout, optimizer = flat()
    optimizer.state[layout.owners[0].tensor]["row"] = torch.ones(2, 2)
    with pytest.raises(CheckpointError, match=r"Own keeps 'row' of shape \(2, 2\) for many parameters at once"):
        state_dict._read_owner(layout, 0, FullState())


def state_of_flat(**numbers: float) -> FullState:
    moments = {"sum": {"a": torch.ones(2), "b": torch.ones(3)}}
    weights = {"a": torch.zeros(2), "b": torch.zeros(3)}
    return FullState(weights=weights, moments=moments, numbers={name: {"step": n} for name, n in numbers.items()})


def test_counters_that_one_owner_cannot_keep_apart_are_told() -> None:
    layout, _ = flat()
    assert state_dict._owner_mismatches(layout, 0, Source(state_of_flat(a=3.0, b=3.0))) == []
    assert state_dict._owner_mismatches(layout, 0, Source(state_of_flat(a=3.0))) == []
    (line,) = state_dict._owner_mismatches(layout, 0, Source(state_of_flat(a=3.0, b=4.0)))
    assert line.startswith("'step' differs between parameters ('a': 3, 'b': 4), and this engine keeps one for all")


def test_factored_moments_are_refused_where_parameters_are_cut() -> None:
    layout, _ = flat()
    state = state_of_flat(a=1.0, b=1.0)
    state.moments["sum"]["b"] = torch.ones(1)
    (line,) = state_dict._owner_mismatches(layout, 0, Source(state))
    assert line == (
        "'sum' of 'b' in optimizer.safetensors has shape (1,) in the checkpoint and (3,) in the optimizer; where it is "
        "factored, it cannot be cut over ranks: resume at engine.zero_stage = 0"
    )
    state.moments["sum"]["b"] = torch.ones(3, dtype=torch.int64)
    (line,) = state_dict._owner_mismatches(layout, 0, Source(state))
    assert line.endswith("has type torch.int64 in the checkpoint and torch.float32 in the optimizer")
    model = nn.Linear(4, 4)
    optimizer = Adafactor(model.parameters(), lr=0.1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    saved = export_state(model, optimizer)
    assert state_dict._mismatches(plain_layout(model, optimizer), Source(saved)) == []


def test_a_flat_owner_is_written_piece_by_piece_and_what_is_not_saved_starts_anew() -> None:
    layout, optimizer = flat()
    owner = layout.owners[0].tensor
    state = state_of_flat(a=3.0, b=3.0)
    state.weights = {"a": torch.tensor([7.0, 8.0]), "b": torch.tensor([4.0, 5.0, 6.0])}
    del state.moments["sum"]["b"]
    with torch.no_grad():
        state_dict._write_owner(layout, 0, Source(state))
    assert owner.tolist() == [7.0, 8.0, 4.0, 5.0, 6.0]
    assert layout.parameters["b"].tolist() == [4.0, 5.0, 6.0]
    assert optimizer.state[owner]["sum"].tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert optimizer.state[owner]["step"] == 3


def test_names_in_messages_are_few() -> None:
    assert _some(set()) == "none"
    assert _some({"b", "a"}) == "2 ('a', 'b')"
    assert _some({"c", "b", "a"}) == "3 ('a', 'b', 'c')"
    assert _some({"d", "c", "b", "a"}) == "4 ('a', 'b', 'c', ...)"
