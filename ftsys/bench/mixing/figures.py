"""Computes how an order of examples mixes them. All but padding are 1 for a plain shuffle, but for chance. Pure.

An order is given as batches: (steps, batch size) of example ids, all of an epoch but a last incomplete batch.
"""

import numpy as np
import numpy.typing as npt

Batches = npt.NDArray[np.int64]


def as_batches(ids: npt.ArrayLike, size: int) -> Batches:
    """Cut an order of ids into batches of `size`; an incomplete last one is left out."""
    order = np.asarray(ids, np.int64)
    steps = len(order) // size
    return order[: steps * size].reshape(steps, size)


def spread_of_means(values: npt.NDArray[np.float64], batches: Batches) -> float:
    """Return the variance of the batches' means of `values`, (N,), over that of random batches without replacement.

    Above 1: a batch holds examples of like values, up to its size where all are alike. Below 1: batches are balanced.
    The variance of a random batch's mean is that of Cochran (Sampling Techniques, 1977, theorem 2.2).
    """
    total, size = len(values), batches.shape[1]
    expected = values.var() / size * (total - size) / (total - 1)
    return float(np.mean((values[batches].mean(axis=1) - values.mean()) ** 2) / expected)


def same_companions(before: Batches, after: Batches, total: int) -> float:
    """Return how often two examples of a batch shared one in the epoch before, over how often by chance.

    `total` is the number of examples. Examples that the epoch before left out are nobody's companions.
    """
    batch_of = np.full(total, -1)
    batch_of[before] = np.arange(len(before))[:, None]
    size = after.shape[1]
    again = 0
    for step in batch_of[after]:
        _, counts = np.unique(step[step >= 0], return_counts=True)
        again += int((counts * (counts - 1) // 2).sum())
    pairs = len(after) * size * (size - 1) / 2
    return again / (pairs * (size - 1) / (total - 1))


def padding(lengths: npt.NDArray[np.int64], batches: Batches) -> float:
    """Return the fraction of padding where each batch is padded to its longest example; 0 to 1."""
    found = lengths[batches]
    return 1.0 - float(found.sum()) / float(found.max(axis=1).sum() * batches.shape[1])
