"""Which examples make step k, and who computes them: pure functions, the same on 1, 2 and 512 ranks.

The plan decides a step's examples from (lengths, seed, epoch, global batch, order) alone. World size and micro-batches
only partition a step, so they can change between lives of a run without changing what it learns from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ftsys.errors import ConfigError

ORDERS = ("random", "length_grouped")
# Length grouping sorts within groups of this many steps: the stock Trainer's figure, so that quality compares.
STEPS_PER_GROUP = 50


@dataclass(frozen=True)
class EpochPlan:
    """`example_ids`: int64 (N,), every example once; step k is `example_ids[starts[k]:starts[k + 1]]`."""

    example_ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        """Optimizer steps in the epoch."""
        return len(self.starts) - 1

    def step(self, k: int) -> np.ndarray:
        """The example ids of step `k`, int64, in O(1)."""
        return self.example_ids[self.starts[k] : self.starts[k + 1]]


def _generator(seed: int, epoch: int) -> np.random.Generator:
    """Philox keyed by both numbers: streams of different epochs never overlap, and no draw happens before them."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))


def plan_epoch(
    lengths: np.ndarray,
    seed: int,
    epoch: int,
    *,
    global_size: int | None = None,
    global_tokens: int | None = None,
    order: str = "random",
) -> EpochPlan:
    """Plan one epoch of `lengths` (tokens of each example, integer (N,)) in steps of `global_size` examples.

    With `global_tokens` a step holds at most that many tokens; every epoch has the same number of steps, since the
    learning rate's schedule and a resume count on it.

    Raises:
        ConfigError: no examples, an order that does not exist, not exactly one of the two sizes, or fewer tokens in a
            step than three examples of the longest length have.
    """
    if (global_size is None) == (global_tokens is None):
        raise ConfigError(f"one of batch.global_size={global_size!r} and batch.global_tokens={global_tokens!r} is due.")
    if len(lengths) == 0:
        raise ConfigError("the training split has no examples. Give a source with at least one.")
    if order not in ORDERS:
        raise ConfigError(f"batch.order={order!r} is not an order. Use one of {ORDERS}.")
    generator = _generator(seed, epoch)
    ids = generator.permutation(len(lengths))
    if order == "length_grouped":
        size = global_size or max(1, int((global_tokens or 1) / max(1.0, float(lengths.mean()))))
        ids = _group_by_length(ids, lengths, size, generator)
    return EpochPlan(ids, _step_starts(lengths[ids], global_size, global_tokens))


def _group_by_length(ids: np.ndarray, lengths: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Sort by length within groups of steps, then shuffle the steps; the last, perhaps smaller one stays last."""
    span = STEPS_PER_GROUP * size
    grouped = [part[np.argsort(-lengths[part], kind="stable")] for part in np.split(ids, range(span, len(ids), span))]
    ordered = np.concatenate(grouped)
    whole = len(ordered) // size
    shuffled = ordered[: whole * size].reshape(whole, size)[generator.permutation(whole)]
    return np.concatenate([shuffled.ravel(), ordered[whole * size :]])


def _step_starts(ordered_lengths: np.ndarray, global_size: int | None, global_tokens: int | None) -> np.ndarray:
    if global_size is not None:
        return np.append(np.arange(0, len(ordered_lengths), global_size), len(ordered_lengths))
    return _equal_tokens(ordered_lengths, int(global_tokens or 1))


def _equal_tokens(ordered_lengths: np.ndarray, tokens: int) -> np.ndarray:
    """Cut the order into steps of equal token sums, each at most `tokens`; their number depends on no order.

    A step ends with the last example that ends before its share does, so it is over its share by less than one
    example: with shares of at most `tokens - longest` none is over `tokens`. With shares of at least `longest`, which
    three examples a step make sure of, none is empty.
    """
    longest, total = int(ordered_lengths.max()), int(ordered_lengths.sum(dtype=np.int64))
    if tokens < 3 * longest:
        raise ConfigError(
            f"batch.global_tokens={tokens!r} is less than three examples of the longest length, {longest} tokens. "
            f"Write {3 * longest} or more, or give batch.global_size."
        )
    steps = max(1, -(-total // (tokens - longest)))
    ends = np.cumsum(ordered_lengths, dtype=np.int64)
    starts = np.searchsorted(ends, np.arange(1, steps) * total // steps, side="right")
    return np.concatenate([[0], starts, [len(ordered_lengths)]]).astype(np.int64)


def _fill(ordered_lengths: np.ndarray, tokens: int) -> np.ndarray:
    """Cut a sequence of examples where the next one would exceed `tokens`; an example longer than that stands alone."""
    ends = np.cumsum(ordered_lengths, dtype=np.int64)
    starts = [0]
    while starts[-1] < len(ends):
        before = ends[starts[-1] - 1] if starts[-1] else 0
        fitting = int(np.searchsorted(ends, before + tokens, side="right"))
        starts.append(max(fitting, starts[-1] + 1))
    return np.array(starts, dtype=np.int64)


def deal(lengths: np.ndarray, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Who computes which of a step's examples: counts differ by at most one between ranks, token sums are balanced.

    Longest first, in rows of one example a rank, each row's longest to the rank that has the fewest tokens so far
    (Graham's LPT rule under equal counts). Ties go to the lower rank: every rank computes the same deal. Returns the
    indices of the examples, longest first, and the rank of each, both int64 of the step's size.
    """
    order = np.argsort(-lengths, kind="stable")
    loads, owners = np.zeros(ranks, dtype=np.int64), np.zeros(len(order), dtype=np.int64)
    for first in range(0, len(order) if ranks > 1 else 0, ranks):
        row = slice(first, min(first + ranks, len(order)))
        lightest = np.argsort(loads, kind="stable")[: row.stop - first]
        owners[row] = lightest
        loads[lightest] += lengths[order[row]]
    return order, owners


def micro_batches(lengths: np.ndarray, micro_tokens: int) -> list[np.ndarray]:
    """Cut one rank's examples, longest first, into micro-batches of at most `micro_tokens` tokens; indices of them.

    Examples of like lengths lie together, so what has to be padded for a kernel's sake is little. An example longer
    than `micro_tokens` stands alone; no examples make one empty micro-batch.
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[start:end] for start, end in pairwise(_fill(lengths[order], micro_tokens))] or [order]


@dataclass(frozen=True)
class StepShare:
    """What one rank does in one step: its micro-batches of example ids, empty ones included, and the step's figures."""

    micro_batches: Sequence[np.ndarray]
    step_examples: int
    step_tokens: int
    imbalance: float


def share_of_step(ids: np.ndarray, lengths: np.ndarray, rank: int, ranks: int, micro_tokens: int) -> StepShare:
    """Rank `rank`'s share of the step that consists of examples `ids` with `lengths` tokens.

    Every rank has the same number of micro-batches, the most that any rank needs: the rest are empty, so that all
    ranks join the same collectives. `imbalance` is the fullest rank's tokens over the mean, minus one.
    """
    order, owners = deal(lengths, ranks)
    loads = np.bincount(owners, lengths[order], minlength=ranks).astype(np.int64)  # exact: far below 2^53
    own = order[owners == rank]
    full = [order[owners == other] for other in np.flatnonzero(loads > micro_tokens)]  # whoever else fits into one
    count = max((len(micro_batches(lengths[part], micro_tokens)) for part in full), default=1)
    cut = [ids[own[part]] for part in micro_batches(lengths[own], micro_tokens)]
    cut += [np.empty(0, dtype=np.int64)] * (count - len(cut))
    total = int(loads.sum())
    return StepShare(cut, len(ids), total, int(loads.max()) * ranks / max(total, 1) - 1.0)


def plan_evaluation(lengths: np.ndarray, pack_tokens: int) -> list[np.ndarray]:
    """Evaluation packs, longest examples first: int64 example ids, at most `pack_tokens` tokens each.

    Planned without regard to ranks and dealt whole, so that a pack's content, and with it every rounding of a
    low-precision forward pass, is the same under any world size.
    """
    order = np.argsort(-lengths, kind="stable")
    starts = _fill(lengths[order], pack_tokens)
    return [order[start:end] for start, end in pairwise(starts)]
