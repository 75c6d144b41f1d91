"""Tests where an optimizer keeps parameters: pieces, shares of ranks, names out of wrappers, and buffers."""

from itertools import accumulate

import pytest
import torch
from torch import nn
from torch.optim import SGD

from ftsys.train.checkpoint.optimizer_layout import (
    Layout,
    Owner,
    Piece,
    frozen_weights,
    is_engine,
    moments_of,
    named_parameters,
    numbers_of,
    persistent_buffers,
    plain_layout,
    shape_of,
    unwrap,
)
from ftsys.train.checkpoint.training_state import joined, label
from tests.distributed.tiny import Tiny


def test_one_owner_for_each_trained_parameter() -> None:
    model = Tiny()
    optimizer = SGD([{"params": model.head.parameters()}, {"params": [model.body.weight, model.frozen.weight]}], lr=1.0)
    layout = plain_layout(model, optimizer)
    assert layout.pieces == [
        [Piece("head.weight", 0, 22, 0, 0), Piece("head.bias", 0, 2, 1, 0), Piece("body.weight", 0, 36, 2, 0)]
    ]
    assert [(owner.tensor is model.body.weight, owner.group) for owner in layout.owners][2] == (True, 1)
    assert [owner.group for owner in layout.owners] == [0, 0, 1]
    assert layout.names_in(2) == ["body.weight"]
    assert not layout.partitioned
    assert "frozen.weight" in layout.unowned()
    assert "body.weight" not in layout.unowned()
    assert layout.owners[0].state == {}


def flat_layout(counts: list[int]) -> Layout:
    """Parameters p0, p1, ... of these sizes, end to end in one owner that every rank has."""
    starts = [0, *accumulate(counts)]
    pieces = [Piece(f"p{index}", 0, count, 0, starts[index]) for index, count in enumerate(counts)]
    optimizer = SGD([nn.Parameter(torch.zeros(max(sum(counts), 1)))], lr=1.0)
    parameters = {piece.name: nn.Parameter(torch.zeros(piece.count)) for piece in pieces}
    owner = Owner(optimizer.param_groups[0]["params"][0], optimizer, 0)
    return Layout(nn.Module(), parameters, [owner], [pieces], False, [optimizer])


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("counts", [[5], [3, 0, 4, 1], [2, 2, 2], [0]])
def test_the_ranks_shares_are_the_whole_once_and_equal(counts: list[int], ranks: int) -> None:
    layout, total = flat_layout(counts), sum(counts)
    flat = torch.arange(total, dtype=torch.float32)
    shares = [layout.shard_of(rank, ranks) for rank in range(ranks)]
    assert [sum(piece.count for piece in share) for share in shares] == [
        (rank + 1) * total // ranks - rank * total // ranks for rank in range(ranks)
    ]
    pieces = [piece for share in shares for piece in share]
    assert len({(piece.name, piece.start) for piece in pieces}) == len(pieces)
    tensors = {
        label(piece.name, piece.start, piece.count, counts[int(piece.name[1:])]): flat[piece.offset :][: piece.count]
        for piece in pieces
    }
    found = joined(tensors, {f"p{index}": [count] for index, count in enumerate(counts)})
    assert torch.cat([found[f"p{index}"] for index in range(len(counts))]).tolist() == flat.tolist()


def test_a_partition_is_its_ranks_own() -> None:
    layout = flat_layout([4])
    layout.partitioned, layout.pieces = True, [[Piece("p0", 0, 2, 0, 0)], [Piece("p0", 2, 2, 1, 0)]]
    assert layout.shard_of(1, 2) == layout.pieces_of(1, 1) == [Piece("p0", 2, 2, 1, 0)]
    assert layout.pieces_of(1, 0) == []
    assert layout.names_in(1) == ["p0"]


def test_a_model_is_taken_out_of_its_wrappers() -> None:
    model = Tiny()
    compiled = torch.compile(model)
    assert unwrap(compiled) is model
    assert unwrap(model) is model
    assert list(named_parameters(compiled)) == list(named_parameters(model))
    model.body = torch.compile(model.body)
    assert "body.weight" in named_parameters(model)


def test_an_engine_is_known_by_its_class_alone() -> None:
    engine = type("DeepSpeedEngine", (), {"__module__": "deepspeed.runtime.engine"})
    assert is_engine(engine())
    assert is_engine(type("Pipeline", (engine,), {})())
    assert not is_engine(type("DeepSpeedEngine", (), {"__module__": "mine"})())
    assert not is_engine(type("Other", (), {"__module__": "deepspeed.runtime.engine"})())
    holder = engine()
    holder.module = Tiny()
    assert unwrap(holder) is holder.module


def test_buffers_of_the_state_dict_have_plain_names() -> None:
    model = Tiny()
    model.register_buffer("nothing", None)
    model.norm.register_buffer("inner", torch.ones(1))
    assert list(persistent_buffers(model)) == ["seen", "norm.inner"]
    assert persistent_buffers(model)["seen"] is model.seen
    model.norm = torch.compile(model.norm)
    assert list(persistent_buffers(model)) == ["seen", "norm.inner"]


def test_frozen_weights_are_those_without_a_gradient() -> None:
    found = frozen_weights(Tiny())
    assert list(found) == ["frozen.weight", "frozen.bias"]
    assert not any(tensor.requires_grad for tensor in found.values())


def test_an_optimizer_counts_in_numbers_or_in_tensors_of_one() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = SGD([weight], lr=0.1)
    numbers = {"step": 3, "decay": 0.5, "scale": torch.tensor(2.0)}
    optimizer.state[weight] = {**numbers, "warm": True, "average": torch.zeros(3)}
    owner = Owner(weight, optimizer, 0)
    assert numbers_of(owner) == {"step": 3, "decay": 0.5, "scale": 2.0}
    assert moments_of(owner).keys() == {"average"}


def test_a_partitioned_parameter_keeps_its_whole_shape() -> None:
    parameter = nn.Parameter(torch.zeros(0))
    assert shape_of(parameter) == (0,)
    parameter.ds_shape = (3, 2)
    assert shape_of(parameter) == (3, 2)
