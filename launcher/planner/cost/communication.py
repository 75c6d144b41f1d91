"""Predicts the bytes that one GPU sends in a step, and that leave a machine, by engine and ZeRO stage. Pure.

Collectives are assumed to be rings, which send the least (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms
for clusters of workstations", 2009): of n bytes on R ranks, each rank sends (R - 1) / R * n in an all-gather or a
reduce-scatter, and twice that in an all-reduce. The collectives of each stage are those of DeepSpeed 0.19.8's code,
which differ from its papers: ZeRO 1 and 2 all-reduce their buckets, and ZeRO 3 keeps a model of up to half a billion
parameters gathered from the forward to the backward pass. The small sums of loss, norm and counts are left out.
"""

from launcher.planner.cost.engine_memory import ALL_GATHERED_AT_MOST
from launcher.planner.cost.memory import Setting
from launcher.planner.model_shape import ModelShape


def all_gather(size: int, ranks: int) -> int:
    """Return the bytes that a rank sends so that every rank has all `size` bytes."""
    return size * (ranks - 1) // ranks


def reduce_scatter(size: int, ranks: int) -> int:
    """Return the bytes that a rank sends so that every rank has its part of a sum of `size` bytes."""
    return size * (ranks - 1) // ranks


def all_reduce(size: int, ranks: int) -> int:
    """Return the bytes that a rank sends so that every rank has the whole sum: reduce-scatter, then all-gather."""
    return 2 * size * (ranks - 1) // ranks


def sent_per_rank(shape: ModelShape, setting: Setting, micro_batches: int) -> int:
    """Return the bytes that one rank sends in a step of `micro_batches` micro-batches."""
    ranks = setting.ranks
    number = 2 if setting.low_weights else 4
    size, whole = shape.trained_parameters * number, shape.parameters * number
    if setting.zero_stage == 0:
        return all_reduce(size, ranks)
    if setting.zero_stage == 1:
        return all_reduce(size, ranks) + all_gather(size, ranks)
    if setting.zero_stage == 2:
        return micro_batches * all_reduce(size, ranks) + all_gather(size, ranks)
    again = 2 if shape.parameters > ALL_GATHERED_AT_MOST else 1
    # gloo has no native reduce-scatter: it all-reduces instead.
    scatter = all_reduce if setting.device == "cpu" else reduce_scatter
    return micro_batches * (again * all_gather(whole, ranks) + scatter(size, ranks))
