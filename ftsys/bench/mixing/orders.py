"""Lists the orders of examples that are compared, each a function of (lengths, batch size, seed, epoch) -> ids."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from ftsys.data.batching.plan import plan_epoch

Lengths = npt.NDArray[np.int64]
Order = Callable[[Lengths, int, int, int], npt.NDArray[np.int64]]
SHARDS = 16
"""Files of equal size in which the streaming libraries find the examples."""


def _plain(lengths: Lengths, size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(len(lengths))


def _ours(order: str, lengths: Lengths, size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return plan_epoch(lengths, seed, epoch, global_size=size, order=order).example_ids.astype(np.int64)


def _stock_grouped(lengths: Lengths, size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    generator = torch.Generator().manual_seed(seed * 1_000 + epoch)
    return np.array(list(LengthGroupedSampler(size, lengths=lengths.tolist(), generator=generator)))


def _datasets(buffer: int, lengths: Lengths, size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    from datasets import Dataset

    rows = Dataset.from_dict({"id": list(range(len(lengths)))}).to_iterable_dataset(num_shards=SHARDS)
    shuffled = rows.shuffle(seed=seed, buffer_size=buffer)
    shuffled.set_epoch(epoch)
    return np.array([row["id"] for row in shuffled])


def _mosaic(block: int, lengths: Lengths, size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    try:
        from streaming.base.shuffle import get_shuffle
    except (ImportError, RuntimeError) as error:  # RuntimeError: its torchvision is made for another torch
        raise ImportError(f"mosaicml-streaming cannot be imported ({error})") from error
    shards = np.full(SHARDS, len(lengths) // SHARDS, np.int64)
    shards[: len(lengths) % SHARDS] += 1
    return np.asarray(get_shuffle("py1e", shards, 1, seed, epoch, block), np.int64)


ORDERS: Mapping[str, tuple[str, Order]] = {
    "plain": ("a permutation of all examples, as torch's RandomSampler has it", _plain),
    "ours": ('ftsys, batch.order = "random"', partial(_ours, "random")),
    "ours-grouped": ('ftsys, batch.order = "length_grouped"', partial(_ours, "length_grouped")),
    "stock-grouped": ("transformers' LengthGroupedSampler", _stock_grouped),
    "datasets-1000": ("datasets, streaming, a buffer of 1,000 (its default)", partial(_datasets, 1_000)),
    "datasets-10000": ("datasets, streaming, a buffer of 10,000", partial(_datasets, 10_000)),
    "mosaic-10000": ("mosaicml-streaming, py1e, blocks of 10,000", partial(_mosaic, 10_000)),
    "mosaic-262144": (
        "mosaicml-streaming, py1e, blocks of 262,144 (its defaults on many nodes)",
        partial(_mosaic, 1 << 18),
    ),
}
"""Name -> (description, order). The streaming ones read the examples from SHARDS files, in the order of the data."""
