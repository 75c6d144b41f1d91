"""Simulates the load balance of thousands of ranks: our batch plan against the stock samplers.

In every step all ranks wait for the slowest, so the rank with the most tokens decides. A rank's cost is the number of
tokens that it computes: real tokens in packed batches, real and padding tokens in padded batches. Communication and
attention's quadratic part are left out. The simulation uses NumPy only and starts no rank.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftsys.data.batching.plan import plan_epoch, plan_local_batch

Lengths = npt.NDArray[np.integer]
RANKS = (8, 64, 512, 4096)
PER_RANK = 32
"""Examples of a rank in one step."""
MOST_EXAMPLES = 1 << 19
"""Upper limit of simulated examples, for memory; at least 4 steps are simulated."""
MICRO_TOKENS = 16_384
MEGA_BATCHES = 50
"""Batches within which transformers' LengthGroupedSampler sorts; a quarter of the epoch where that is less."""


@dataclass(frozen=True)
class Balance:
    """Means over the simulated steps."""

    imbalance: float
    """Computed tokens of the rank with the most, over the mean, minus one."""
    padding: float
    """Fraction of the computed tokens that are padding."""
    efficiency: float
    """Real tokens over the tokens that all ranks could have computed in the time of the slowest."""


def drawn_lengths(lengths: Lengths, ranks: int, per_rank: int = PER_RANK, seed: int = 0) -> Lengths:
    """Draw an epoch of 4 to 50 whole steps for `ranks` ranks from `lengths`, with replacement."""
    steps = int(np.clip(MOST_EXAMPLES // (ranks * per_rank), 4, MEGA_BATCHES))
    return np.random.default_rng(seed).choice(lengths, steps * ranks * per_rank)


def ours(lengths: Lengths, ranks: int, per_rank: int = PER_RANK, seed: int = 0) -> tuple[Balance, float]:
    """Simulate our batch plan (random order, balanced tokens); returns its balance and the seconds to plan one step."""
    plan = plan_epoch(lengths, seed, 0, global_size=ranks * per_rank)
    rows, start = [], time.perf_counter()
    for k in range(len(plan)):
        ids = plan.step(k)
        share = plan_local_batch(ids, lengths[ids], 0, ranks, MICRO_TOKENS)
        mean = share.step_tokens / ranks
        rows.append((share.imbalance, mean, mean * (1.0 + share.imbalance)))
    seconds = (time.perf_counter() - start) / len(plan)
    imbalances, means, fullest = (np.array(column) for column in zip(*rows, strict=True))
    return Balance(float(imbalances.mean()), 0.0, float(means.sum() / fullest.sum())), seconds


def stock(
    lengths: Lengths, ranks: int, per_rank: int = PER_RANK, *, length_grouped: bool = False, seed: int = 0
) -> Balance:
    """Simulate the stock Trainer: batches padded to their longest example, the r-th batch of a step for rank r."""
    ids = np.random.default_rng(seed).permutation(len(lengths))
    ordered = lengths[ids]
    if length_grouped:
        mega = per_rank * max(1, min(len(lengths) // (4 * per_rank), MEGA_BATCHES))
        ordered = np.concatenate([np.sort(part)[::-1] for part in _parts(ordered, mega)])
    batches = ordered.reshape(-1, ranks, per_rank)
    computed = batches.max(axis=2).astype(np.float64) * per_rank
    real, fullest = float(batches.sum()), computed.max(axis=1)
    return Balance(
        float((fullest / computed.mean(axis=1) - 1.0).mean()),
        1.0 - real / float(computed.sum()),
        real / (ranks * float(fullest.sum())),
    )


def _parts(lengths: Lengths, size: int) -> Iterator[Lengths]:
    for start in range(0, len(lengths), size):
        yield lengths[start : start + size]
