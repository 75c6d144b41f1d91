"""Tests where DeepSpeed keeps parameters, on small doubles of its optimizers: flat groups, partitions, counters."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from ftsys.errors import CheckpointError
from ftsys.train.checkpoint import deepspeed_layout
from ftsys.train.checkpoint.deepspeed_layout import part_of, read_counters, write_counters, write_live
from ftsys.train.checkpoint.optimizer_layout import Layout, named_parameters

SIZES = (5, 1, 6, 2)
Ranks = Callable[..., None]
"""Called with the numbers of ranks and of this rank, and that of the ranks in a group."""


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    """Return a function that says how many ranks there are, and which is this one."""

    def of(count: int, rank: int = 0, group: int | None = None) -> None:
        sizes = {None: count, "data": count if group is None else group}
        world = SimpleNamespace(get_world_size=lambda group=None: sizes[group], get_rank=lambda: rank)
        monkeypatch.setattr(deepspeed_layout, "dist", world)

    return of


@pytest.fixture
def layout() -> Layout:
    """Return the empty layout of parameters p0, p1, ... with the numbers 0, 1, ... in all."""
    numbers = iter(torch.arange(sum(SIZES), dtype=torch.float32).split(SIZES))
    module = nn.ParameterDict({f"p{index}": nn.Parameter(next(numbers).clone()) for index in range(len(SIZES))})
    return Layout(module, named_parameters(module), [], [[]], False, [])


def put_together(layout: Layout, flats: list[list[torch.Tensor]]) -> dict[str, list[float]]:
    """Read each parameter's pieces out of each rank's flat tensors, `flats[rank][owner]`, sorted by their start."""
    found: dict[str, list[tuple[int, list[float]]]] = {}
    for rank, pieces in enumerate(layout.pieces):
        for piece in pieces:
            part = flats[rank][piece.owner][piece.offset :][: piece.count]
            assert len(part) == piece.count > 0
            found.setdefault(piece.name, []).append((piece.start, part.tolist()))
    return {name: [value for _, part in sorted(parts) for value in part] for name, parts in found.items()}


def expected(layout: Layout) -> dict[str, list[float]]:
    return {name: parameter.tolist() for name, parameter in layout.parameters.items()}


def groups_of(layout: Layout) -> list[list[nn.Parameter]]:
    p0, p1, p2, p3 = layout.parameters.values()
    return [[p0, p1, p2], [p3]]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_flat_groups_are_cut_over_the_ranks(ranks: Ranks, layout: Layout, count: int) -> None:
    ranks(count, 0)
    groups, flats = groups_of(layout), []
    for group in groups:
        flat = torch.cat([parameter.detach() for parameter in group])
        size = -(-len(flat) // count)
        flats.append(list(torch.cat([flat, flat.new_full((size * count - len(flat),), -1)]).split(size)))
    optimizer = SGD(layout.parameters.values(), lr=1.0)
    deepspeed_layout._add_flat(layout, optimizer, groups, [parts[0] for parts in flats], cut=True)
    assert layout.partitioned
    assert len(layout.pieces) == count
    assert put_together(layout, [[parts[rank] for parts in flats] for rank in range(count)]) == expected(layout)
    assert [(owner.tensor is parts[0], owner.group) for owner, parts in zip(layout.owners, flats, strict=True)] == [
        (True, 0), (True, 1),
    ]  # fmt: skip


def test_flat_groups_that_are_not_cut_are_whole_on_every_rank(ranks: Ranks, layout: Layout) -> None:
    ranks(3, 0)
    flats = [torch.cat([parameter.detach() for parameter in group]) for group in groups_of(layout)]
    deepspeed_layout._add_flat(layout, SGD(layout.parameters.values(), lr=1.0), groups_of(layout), flats)
    assert not layout.partitioned
    assert put_together(layout, [flats]) == expected(layout)


def test_parameters_lie_at_the_offsets_that_are_given(ranks: Ranks, layout: Layout) -> None:
    ranks(2, 0)
    p0, p1, p2, _ = layout.parameters.values()
    flat = torch.cat([p2.detach(), p1.detach(), torch.zeros(1), p0.detach(), torch.zeros(1)])
    halves = flat.split(7)
    optimizer = SGD(layout.parameters.values(), lr=1.0)
    deepspeed_layout._add_flat(layout, optimizer, [[p0, p1, p2]], [halves[0]], [[8, 6, 0]], cut=True)
    found = put_together(layout, [[halves[0]], [halves[1]]])
    assert found == {name: values for name, values in expected(layout).items() if name != "p3"}


def stage3_of(layout: Layout, count: int, **changed: Any) -> tuple[Any, list[list[torch.Tensor]]]:
    """Return a double of ZeRO 3's optimizer, and each rank's flat tensors: its parts end to end, padded."""
    flats: list[list[torch.Tensor]] = [[] for _ in range(count)]
    for group in groups_of(layout):
        parts = []
        for parameter in group:
            size = -(-parameter.numel() // count)
            padded = torch.cat([parameter.detach(), torch.full((size * count - parameter.numel(),), -1.0)])
            parts.append(padded.split(size))
            parameter.ds_numel, parameter.ds_tensor = parameter.numel(), SimpleNamespace(ds_numel=size)
        for rank in range(count):
            flats[rank].append(torch.cat([part[rank] for part in parts]))
    values = {
        "fp16_groups": groups_of(layout),
        "fp32_partitioned_groups_flat": flats[0],
        "sub_group_to_group_id": {0: 1, 1: 0},
        "swap_optimizer": False,
        "params_in_nvme_and_cpu": False,
        "offload_optimizer": False,
        "optimizer": SGD(layout.parameters.values(), lr=1.0),
    }
    return SimpleNamespace(**{**values, **changed}), flats


@pytest.mark.parametrize("count", [1, 2, 3])
def test_sub_groups_of_stage_3_have_each_ranks_parts_end_to_end(ranks: Ranks, layout: Layout, count: int) -> None:
    ranks(count, 0)
    optimizer, flats = stage3_of(layout, count)
    deepspeed_layout._add_stage3(layout, optimizer)
    assert put_together(layout, flats) == expected(layout)
    assert [owner.group for owner in layout.owners] == [1, 0]
    assert all(owner.optimizer is optimizer.optimizer for owner in layout.owners)
    assert layout.partitioned
    assert layout.optimizers == []


def test_sub_groups_that_stay_on_the_device_have_an_optimizer_of_their_own(ranks: Ranks, layout: Layout) -> None:
    ranks(1, 0)
    backup = SGD(layout.parameters.values(), lr=1.0)
    optimizer, _ = stage3_of(
        layout, 1, offload_optimizer=True, subgroup_to_device={0: "cuda", 1: "cpu"}, backup_optimizer=backup
    )
    deepspeed_layout._add_stage3(layout, optimizer)
    assert [owner.optimizer is backup for owner in layout.owners] == [True, False]
    assert layout.optimizers == [backup]


@pytest.mark.parametrize("name", ["swap_optimizer", "params_in_nvme_and_cpu"])
def test_state_on_nvme_is_refused(ranks: Ranks, layout: Layout, name: str) -> None:
    ranks(1, 0)
    with pytest.raises(CheckpointError, match=r"offload='nvme:\.\.\.' keeps the optimizer in files"):
        deepspeed_layout._add_stage3(layout, stage3_of(layout, 1, **{name: True})[0])


def test_other_parallelism_is_refused(ranks: Ranks) -> None:
    engine, refuse = SimpleNamespace(seq_data_parallel_group="data"), deepspeed_layout._refuse_other_parallelism
    ranks(4, 0)
    refuse(engine, SimpleNamespace())
    refuse(engine, SimpleNamespace(has_moe_layers=False))
    with pytest.raises(CheckpointError, match="expert-parallel layers"):
        refuse(engine, SimpleNamespace(has_moe_layers=True))
    ranks(4, 0, 2)
    with pytest.raises(CheckpointError, match="has 2 of 4 ranks"):
        refuse(engine, SimpleNamespace())


def partitioned(values: list[float], whole: int, kept: bool = False) -> nn.Parameter:
    """Return a parameter of `whole` elements of which this rank has the part `values`."""
    parameter = nn.Parameter(torch.zeros(whole if kept else 0))
    parameter.ds_tensor = torch.tensor(values)
    parameter.ds_tensor.ds_numel = len(values)
    parameter.ds_shape = (whole,)
    parameter.ds_secondary_tensor = torch.ones(1)
    return parameter


WHOLE = torch.arange(1.0, 6.0)


@pytest.mark.parametrize(("rank", "written"), [(0, [1.0, 2.0]), (1, [3.0, 4.0]), (2, [5.0, 9.0]), (3, [9.0, 9.0])])
@pytest.mark.parametrize("kept", [False, True])
def test_a_rank_writes_its_part_and_leaves_the_padding(
    ranks: Ranks, rank: int, written: list[float], kept: bool
) -> None:
    ranks(4, rank)
    parameter = partitioned([9.0, 9.0], 5, kept)
    write_live(parameter, WHOLE)
    part = part_of(parameter)
    assert part is not None
    assert part.tolist() == written
    assert parameter.tolist() == (WHOLE.tolist() if kept else [])
    assert parameter.ds_secondary_tensor is None


def test_a_whole_parameter_is_written_in_its_own_precision() -> None:
    parameter = nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))
    assert part_of(parameter) is None
    write_live(parameter, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert (parameter.dtype, parameter.tolist()) == (torch.bfloat16, [[1.0, 2.0], [3.0, 4.0]])


def test_quantized_weights_are_refused() -> None:
    parameter = partitioned([1.0], 1)
    parameter.ds_tensor.ds_quant_scale = torch.ones(1)
    with pytest.raises(CheckpointError, match="zero_quantized_nontrainable_weights"):
        part_of(parameter)


def engine_of(optimizer: Any, steps: int) -> Any:
    return SimpleNamespace(global_steps=steps, global_samples=10 * steps, skipped_steps=1, optimizer=optimizer)


@pytest.mark.parametrize(("name", "flag"), [("loss_scaler", "dynamic"), ("loss_scale_config", "dynamic_loss_scale")])
def test_counters_and_a_dynamic_loss_scale_go_to_another_engine(name: str, flag: str) -> None:
    def scaled(scale: float, **fields: Any) -> Any:
        return SimpleNamespace(**{name: SimpleNamespace(cur_scale=scale, cur_iter=5, **{flag: True}, **fields)})

    saved = read_counters(engine_of(scaled(64.0, last_overflow_iter=-1), 7))
    assert saved == {
        "global_steps": 7, "global_samples": 70, "skipped_steps": 1,
        "loss_scale": {"cur_scale": 64.0, "cur_iter": 5, "last_overflow_iter": -1},
    }  # fmt: skip
    other = engine_of(scaled(1.0), 0)
    write_counters(other, saved | {"unknown": 1})
    assert (other.global_steps, other.global_samples, other.skipped_steps) == (7, 70, 1)
    scaler = getattr(other.optimizer, name)
    assert (scaler.cur_scale, hasattr(scaler, "last_overflow_iter"), hasattr(other, "unknown")) == (64.0, False, False)


@pytest.mark.parametrize(
    "optimizer", [None, SimpleNamespace(), SimpleNamespace(loss_scaler=SimpleNamespace(dynamic=False))]
)
def test_a_fixed_loss_scale_is_not_saved(optimizer: Any) -> None:
    engine = engine_of(optimizer, 7)
    assert "loss_scale" not in read_counters(engine)
    write_counters(engine, {"global_steps": 8, "loss_scale": {"cur_scale": 2.0}})
    assert (engine.global_steps, engine.global_samples) == (8, 70)
