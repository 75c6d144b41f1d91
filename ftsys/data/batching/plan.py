"""Plans the examples of each step and the rank that computes each example, with pure functions.

The examples of a step depend on (lengths, seed, epoch, global batch, order) alone, so they are the same on 1, 2 and 512
ranks. World size and micro-batches only partition a step: they can change between attempts of a run, and the run still
learns from the same examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ftsys.errors import ConfigError

ORDERS = ("random", "length_grouped")
# Length grouping sorts within groups of this many steps: the stock Trainer's number, so that quality is comparable.
STEPS_PER_GROUP = 50


@dataclass(frozen=True)
class EpochPlan:
    """The order of one epoch: `example_ids`, int64 (N,), has every example once.

    Step k is `example_ids[starts[k]:starts[k + 1]]`.
    """

    example_ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        """Return the number of optimizer steps in the epoch."""
        return len(self.starts) - 1

    def step(self, k: int) -> np.ndarray:
        """Return the example ids of step `k`, int64, in O(1)."""
        return self.example_ids[self.starts[k] : self.starts[k + 1]]


def _generator(seed: int, epoch: int) -> np.random.Generator:
    """Return a Philox generator with both numbers as its key, so that streams of different epochs never overlap."""
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

    With `global_tokens`, a step has at most that many tokens, and every epoch has the same number of steps: the
    learning-rate schedule and a resume rely on that.

    Raises:
        ConfigError: for no examples, an unknown order, not exactly one of the two sizes, or a `global_tokens` that is
            less than three examples of the longest length.
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
    """Sort by length within groups of steps, then shuffle the steps; the last one, which may be smaller, stays last."""
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
    """Cut the order into steps of equal token sums, each at most `tokens`; the number of steps depends on no order.

    The total is divided into equal parts, and a step has the examples that end within its part. So a step exceeds its
    part by less than one example: with parts of at most `tokens - longest`, none has more than `tokens`. No step is
    empty if a part is at least `longest`, which the minimum of three examples per step guarantees.
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
    """Return the starts of runs of examples of at most `tokens` tokens; a longer example is a run of its own."""
    ends = np.cumsum(ordered_lengths, dtype=np.int64)
    starts = [0]
    while starts[-1] < len(ends):
        before = ends[starts[-1] - 1] if starts[-1] else 0
        fitting = int(np.searchsorted(ends, before + tokens, side="right"))
        starts.append(max(fitting, starts[-1] + 1))
    return np.array(starts, dtype=np.int64)


def assign_to_ranks(lengths: np.ndarray, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Assign a step's examples to ranks: counts differ by at most one, and token sums are balanced.

    Goes through the examples from the longest to the shortest, in rounds of one example per rank. In each round, the
    longest example goes to the rank with the fewest tokens so far (Graham's LPT rule with equal counts). Ties go to the
    lower rank, so that all ranks compute the same assignment. Returns the indices of the examples, longest first, and
    the rank of each, both int64 of the step's size.
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
    """Cut one rank's examples, longest first, into micro-batches of at most `micro_tokens` tokens; returns indices.

    Examples of similar length are in one micro-batch, so that kernels that pad compute few padding tokens. An example
    longer than `micro_tokens` is a micro-batch of its own; no examples make one empty micro-batch.
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[start:end] for start, end in pairwise(_fill(lengths[order], micro_tokens))] or [order]


@dataclass(frozen=True)
class LocalPlan:
    """One rank's local batch of a step: micro-batches of example ids, empty ones included, and figures of the step."""

    micro_batches: Sequence[np.ndarray]
    step_examples: int
    step_tokens: int
    imbalance: float


def plan_local_batch(ids: np.ndarray, lengths: np.ndarray, rank: int, ranks: int, micro_tokens: int) -> LocalPlan:
    """Plan the local batch of rank `rank` in the step of the examples `ids`, which have `lengths` tokens.

    Every rank has the same number of micro-batches, the most that any rank needs. The additional ones are empty, so
    that all ranks join the same collectives. `imbalance` is the largest token sum of a rank over the mean, minus one.
    """
    order, owners = assign_to_ranks(lengths, ranks)
    loads = np.bincount(owners, lengths[order], minlength=ranks).astype(np.int64)  # exact: far below 2^53
    own = order[owners == rank]
    full = [order[owners == other] for other in np.flatnonzero(loads > micro_tokens)]  # all others need only one
    count = max((len(micro_batches(lengths[part], micro_tokens)) for part in full), default=1)
    cut = [ids[own[part]] for part in micro_batches(lengths[own], micro_tokens)]
    cut += [np.empty(0, dtype=np.int64)] * (count - len(cut))
    total = int(loads.sum())
    return LocalPlan(cut, len(ids), total, int(loads.max()) * ranks / max(total, 1) - 1.0)


def plan_evaluation(lengths: np.ndarray, pack_tokens: int) -> list[np.ndarray]:
    """Plan evaluation packs, longest examples first: int64 example ids, at most `pack_tokens` tokens each.

    Packs do not depend on the ranks, and each is computed by one rank. So the content of a pack, and with it every
    rounding in a low-precision forward pass, is the same for any world size.
    """
    order = np.argsort(-lengths, kind="stable")
    starts = _fill(lengths[order], pack_tokens)
    return [order[start:end] for start, end in pairwise(starts)]
