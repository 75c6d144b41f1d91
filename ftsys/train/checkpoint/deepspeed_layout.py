"""Describes where a DeepSpeed 0.19 engine keeps its master weights, at each ZeRO stage and precision.

| stage, precision                        | optimizer class         | master weights                                   |
|-----------------------------------------|-------------------------|--------------------------------------------------|
| 0, fp32                                 | the client's own        | the model's parameters                           |
| 0, bf16 or fp16                         | FP16_UnfusedOptimizer   | one fp32 tensor a parameter, on every rank       |
| 0, bf16 or fp16, fused Adam             | FP16_Optimizer          | one flat fp32 tensor a group, on every rank      |
| 1 and 2                                 | DeepSpeedZeroOptimizer  | a flat fp32 tensor a group, partitioned          |
| 1, bf16 with fp32 gradient accumulation | BF16_Optimizer          | the same                                         |
| 3                                       | ..._Stage3              | a flat fp32 tensor a sub-group, partitioned      |

Offsets are computed here for every rank, from the lists of which DeepSpeed built its flat tensors. Its own
`safe_get_full_*` functions are not used: they do not support stage 0, crash at stage 3 when a parameter's elements
cannot be divided by the ranks (0.19.8), and its `_hp_mapping` is wrong under round_robin_gradients.
"""

from typing import Any

from torch import Tensor
from torch import distributed as dist
from torch.nn import Parameter

from ftsys.errors import CheckpointError
from ftsys.train.checkpoint.optimizer_layout import (
    Layout,
    Owner,
    Piece,
    add_whole,
    named_parameters,
    plain_layout,
    unwrap,
)

SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
ENGINE_FIELDS = ("global_steps", "global_samples", "skipped_steps")


def engine_layout(engine: Any) -> Layout:
    """Return the layout of a DeepSpeed engine's optimizer.

    Raises CheckpointError for an engine with its state elsewhere: NVMe offload, quantized or expert-parallel weights,
    tensor or sequence parallelism.
    """
    from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
    from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer
    from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    module, optimizer = unwrap(engine), engine.optimizer
    if optimizer is None or optimizer is engine.basic_optimizer:
        layout = plain_layout(module, optimizer)
        layout.engine = engine
        return layout
    layout = Layout(module, named_parameters(module), [], [[]], False, [optimizer.optimizer], engine)
    if isinstance(optimizer, FP16_UnfusedOptimizer):
        add_whole(layout, optimizer.optimizer, optimizer.fp16_groups, optimizer.fp32_groups)
    elif isinstance(optimizer, FP16_Optimizer):
        _add_flat(layout, optimizer.optimizer, optimizer.fp16_groups, optimizer.fp32_groups_flat)
    elif isinstance(optimizer, BF16_Optimizer):
        _add_flat(layout, optimizer.optimizer, optimizer.bf16_groups, optimizer.fp32_groups_flat_partition, cut=True)
    elif isinstance(optimizer, DeepSpeedZeroOptimizer):
        owners = optimizer.single_partition_of_fp32_groups
        offsets = optimizer.round_robin_bit16_offsets
        _add_flat(layout, optimizer.optimizer, optimizer.round_robin_bit16_groups, owners, offsets, cut=True)
    elif isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        _add_stage3(layout, optimizer)
    else:
        raise CheckpointError(
            f"DeepSpeed's optimizer is a {type(optimizer).__name__!r}, whose state cannot be read: use a stage from 0 "
            "to 3 with AdamW and without ZenFlow or SuperOffload"
        )
    _refuse_other_parallelism(engine, optimizer)
    return layout


def _add_flat(
    layout: Layout,
    optimizer: Any,
    groups: list[list[Parameter]],
    owners: list[Tensor],
    offsets: list[list[int]] | None = None,
    cut: bool = False,
) -> None:
    """Add a flat owner for each group: parameters end to end or at `offsets`, with `cut` partitioned over the ranks."""
    ranks = dist.get_world_size() if cut else 1
    layout.partitioned = cut
    layout.pieces = [[] for _ in range(ranks)]
    names = {id(parameter): name for name, parameter in layout.parameters.items()}
    for index, (group, tensor) in enumerate(zip(groups, owners, strict=True)):
        layout.owners.append(Owner(tensor, optimizer, index))
        starts = offsets[index] if offsets is not None else _end_to_end(group)
        for parameter, start in zip(group, starts, strict=True):
            for rank in range(ranks):
                # The part of this rank in the parameter's own elements, which may begin before or end behind it.
                first = max(0, rank * tensor.numel() - start)
                last = min(parameter.numel(), (rank + 1) * tensor.numel() - start)
                if first < last:
                    offset = start + first - rank * tensor.numel()
                    layout.pieces[rank].append(Piece(names[id(parameter)], first, last - first, index, offset))


def _end_to_end(group: list[Parameter]) -> list[int]:
    starts = [0]
    for parameter in group:
        starts.append(starts[-1] + parameter.numel())
    return starts[:-1]


def _add_stage3(layout: Layout, optimizer: Any) -> None:
    """Add a flat owner for each sub-group: each rank's parts of its parameters end to end, the last parts padded."""
    if optimizer.swap_optimizer or optimizer.params_in_nvme_and_cpu:
        raise CheckpointError(
            "engine.offload='nvme:...' keeps the optimizer in files of DeepSpeed's own, which checkpoints cannot read "
            'yet: use offload = "optimizer" or "parameters"'
        )
    ranks = dist.get_world_size()
    layout.partitioned = True
    layout.pieces = [[] for _ in range(ranks)]
    names = {id(parameter): name for name, parameter in layout.parameters.items()}
    for index, (group, tensor) in enumerate(
        zip(optimizer.fp16_groups, optimizer.fp32_partitioned_groups_flat, strict=True)
    ):
        layout.owners.append(Owner(tensor, _stage3_optimizer(optimizer, index), optimizer.sub_group_to_group_id[index]))
        offset = 0
        for parameter in group:
            part = parameter.ds_tensor.ds_numel
            for rank in range(ranks):
                count = min(part, parameter.ds_numel - rank * part)
                if count > 0:
                    layout.pieces[rank].append(Piece(names[id(parameter)], rank * part, count, index, offset))
            offset += part
    if hasattr(optimizer, "backup_optimizer"):
        layout.optimizers.append(optimizer.backup_optimizer)


def _stage3_optimizer(optimizer: Any, index: int) -> Any:
    """Return a sub-group's optimizer: under partial offload (ratio below 1) the first ones have one on the device."""
    on_device = optimizer.offload_optimizer and optimizer.subgroup_to_device[index] != "cpu"
    return optimizer.backup_optimizer if on_device else optimizer.optimizer


def _refuse_other_parallelism(engine: Any, optimizer: Any) -> None:
    if dist.get_world_size(group=engine.seq_data_parallel_group) != dist.get_world_size():
        raise CheckpointError(
            f"the data-parallel group has {dist.get_world_size(group=engine.seq_data_parallel_group)} of "
            f"{dist.get_world_size()} ranks: checkpoints know data parallelism only; turn tensor parallelism off"
        )
    if getattr(optimizer, "has_moe_layers", False):
        raise CheckpointError("the model has expert-parallel layers, which checkpoints cannot hold: turn them off")


def part_of(parameter: Parameter) -> Tensor | None:
    """Return this rank's part of a parameter that ZeRO 3 has partitioned, padded at the end; None for a whole one."""
    part = getattr(parameter, "ds_tensor", None)
    if part is not None and hasattr(part, "ds_quant_scale"):
        raise CheckpointError(
            "zero_quantized_nontrainable_weights leaves no exact weights to read: take it out of the DeepSpeed JSON"
        )
    return part


def write_live(parameter: Parameter, whole: Tensor) -> None:
    """Copy `whole` into the parameter that forward passes read, in its own precision."""
    part = part_of(parameter)
    if part is None:
        parameter.data.copy_(whole.view(parameter.shape))
        return
    start = dist.get_rank() * part.ds_numel
    count = min(part.numel(), whole.numel() - start)
    if count > 0:
        part.data[:count].copy_(whole.view(-1)[start : start + count])
    if parameter.data.numel() == whole.numel():
        # Small parameters stay gathered between steps, with a whole copy of their own.
        parameter.data.copy_(whole.view(parameter.shape))
    if getattr(parameter, "ds_secondary_tensor", None) is not None:
        parameter.ds_secondary_tensor = None


def read_counters(engine: Any) -> dict[str, Any]:
    """Return the engine's step counters and the dynamic loss scale of fp16, as numbers."""
    counters = {name: getattr(engine, name) for name in ENGINE_FIELDS}
    scaler = _scaler(engine.optimizer)
    if scaler is not None:
        counters["loss_scale"] = {name: getattr(scaler, name) for name in SCALER_FIELDS if hasattr(scaler, name)}
    return counters


def write_counters(engine: Any, counters: dict[str, Any]) -> None:
    """Set what `read_counters` returned; counters that this engine does not have are left out."""
    for name in ENGINE_FIELDS:
        if name in counters:
            setattr(engine, name, counters[name])
    scaler = _scaler(engine.optimizer)
    if scaler is not None:
        for name, value in counters.get("loss_scale", {}).items():
            if hasattr(scaler, name):
                setattr(scaler, name, value)


def _scaler(optimizer: Any) -> Any:
    """Return the object that holds a dynamic loss scale, or None in other precisions."""
    for scaler, dynamic in (("loss_scaler", "dynamic"), ("loss_scale_config", "dynamic_loss_scale")):
        found = getattr(optimizer, scaler, None)
        if found is not None and getattr(found, dynamic, False):
            return found
    return None
