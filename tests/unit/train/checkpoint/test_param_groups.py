"""Tests the numbers of parameter groups: read as JSON, set in the form they had, matched by parameters."""

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from ftsys.train.checkpoint.optimizer_layout import Layout, plain_layout
from ftsys.train.checkpoint.param_groups import group_mismatches, read_groups, write_groups


@pytest.fixture
def model() -> nn.Module:
    return nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 1, bias=False)})


def layout_of(model: nn.Module, rate: Any = 0.5, **more: Any) -> tuple[Layout, AdamW]:
    groups = [{"params": [model["a"].weight, model["b"].weight]}, {"params": [model["a"].bias], "lr": 0.25}]
    optimizer = AdamW(groups, lr=rate, betas=(0.5, 0.75), **more)
    return plain_layout(model, optimizer), optimizer


def test_numbers_are_read_and_flags_are_not(model: nn.Module) -> None:
    layout, _ = layout_of(model, torch.tensor(0.5), weight_decay=0.125)
    first, second = json.loads(json.dumps(read_groups(layout)))
    assert first == {
        "lr": 0.5, "betas": [0.5, 0.75], "eps": 1e-8, "weight_decay": 0.125, "parameters": ["a.weight", "b.weight"],
    }  # fmt: skip
    assert (second["lr"], second["parameters"]) == (0.25, ["a.bias"])


def test_without_an_optimizer_there_are_no_groups(model: nn.Module) -> None:
    assert read_groups(plain_layout(model, None)) == []


def test_numbers_are_set_in_the_form_they_had(model: nn.Module) -> None:
    rate = torch.tensor(0.5)
    layout, optimizer = layout_of(model, rate)
    saved = read_groups(layout)
    saved[0] |= {"lr": 2.0, "betas": [0.1, 0.2], "initial_lr": 4.0, "unknown": 1}
    saved[1] |= {"lr": 3.0}
    write_groups(layout, saved)
    first, second = optimizer.param_groups
    assert first["lr"] is rate
    assert (rate.item(), first["betas"], first["initial_lr"], second["lr"]) == (2.0, (0.1, 0.2), 4.0, 3.0)
    assert "unknown" not in first
    assert "parameters" not in first
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 1]
    assert "initial_lr" not in second


def test_a_group_takes_the_numbers_of_its_own_parameters_whatever_the_order(model: nn.Module) -> None:
    layout, optimizer = layout_of(model)
    saved = read_groups(layout)
    saved[0]["lr"], saved[1]["lr"] = 2.0, 3.0
    write_groups(layout, saved[::-1])
    assert [group["lr"] for group in optimizer.param_groups] == [2.0, 3.0]


def test_groups_that_were_saved_apart_are_told_by_what_differs(model: nn.Module) -> None:
    saved = read_groups(layout_of(model)[0])
    saved[1]["eps"] = 1e-6
    joined = plain_layout(model, AdamW(model.parameters(), lr=0.5))
    (line,) = group_mismatches(joined, saved)
    assert line.startswith("parameter group 0 joins parameters that were saved with different eps, lr: build")
    assert group_mismatches(layout_of(model)[0], saved) == []
    same = [{**group, "lr": 0.5, "eps": 1e-8} for group in saved]
    assert group_mismatches(joined, same) == []


@pytest.mark.parametrize(
    ("key", "value"), [("lr", "fast"), ("lr", [0.5]), ("lr", True), ("betas", 0.5), ("betas", [0.5]), ("eps", None)]
)
@pytest.mark.parametrize("rate", [0.5, torch.tensor(0.5)])
def test_what_is_no_number_of_the_optimizer_is_told(model: nn.Module, rate: Any, key: str, value: Any) -> None:
    layout, optimizer = layout_of(model, rate)
    saved = read_groups(layout)
    saved[0][key] = value
    (line,) = group_mismatches(layout, saved)
    assert line == (
        f"parameter group 0 was saved with {key} = {value!r}, "
        f"where the optimizer has {optimizer.param_groups[0][key]!r}: go on from another checkpoint"
    )
