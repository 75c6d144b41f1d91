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
BLOCK = 1 << 20
"""Examples whose lengths are summed at once."""


@dataclass(frozen=True)
class EpochPlan:
    """The order of one epoch: `example_ids`, (N,), has every example once.

    Ids are int32 where that is enough, since a plan is held in memory: 400 MB for 100 million examples.
    Step k is `example_ids[starts[k]:starts[k + 1]]`.
    """

    example_ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        """Return the number of optimizer steps in the epoch."""
        return len(self.starts) - 1

    def step(self, k: int) -> np.ndarray:
        """Return the example ids of step `k`, int64, in O(1)."""
        return self.example_ids[self.starts[k] : self.starts[k + 1]].astype(np.int64)


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
    ids = np.arange(len(lengths), dtype=np.int32 if len(lengths) < 2**31 else np.int64)
    generator.shuffle(ids)
    if order == "length_grouped":
        size = global_size or max(1, int((global_tokens or 1) / max(1.0, float(lengths.mean()))))
        ids = _group_by_length(ids, lengths, size, generator)
    if global_size is not None:
        return EpochPlan(ids, np.append(np.arange(0, len(ids), global_size), len(ids)))
    return EpochPlan(ids, _equal_tokens(lengths, ids, int(global_tokens or 1)))


def _group_by_length(ids: np.ndarray, lengths: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Sort by length within groups of steps, then shuffle the steps; the last one, which may be smaller, stays last.

    Sorts `ids` in place: the result is the only further array of that size.
    """
    span, whole = STEPS_PER_GROUP * size, len(ids) // size
    key_type = np.int16 if lengths.max() < 2**15 else np.int64  # NumPy sorts 16 bits by their digits
    for first in range(0, len(ids), span):
        part = ids[first : first + span]
        part[:] = part[np.argsort(-lengths[part].astype(key_type), kind="stable")]
    ordered, cut = np.empty_like(ids), whole * size
    steps, shuffled = (array[:cut].reshape(whole, size) for array in (ids, ordered))
    np.take(steps, generator.permutation(whole), axis=0, out=shuffled, mode="clip")  # "raise" makes a copy
    ordered[cut:] = ids[cut:]
    return ordered


def _equal_tokens(lengths: np.ndarray, ids: np.ndarray, tokens: int) -> np.ndarray:
    """Cut the order into steps of equal token sums, each at most `tokens`; the number of steps depends on no order.

    The total is divided into equal parts, and a step has the examples that end within its part. So a step exceeds its
    part by less than one example: with parts of at most `tokens - longest`, none has more than `tokens`. No step is
    empty if a part is at least `longest`, which the minimum of three examples per step guarantees.
    """
    longest, total = int(lengths.max()), int(lengths.sum(dtype=np.int64))
    if tokens < 3 * longest:
        raise ConfigError(
            f"batch.global_tokens={tokens!r} is less than three examples of the longest length, {longest} tokens. "
            f"Write {3 * longest} or more, or give batch.global_size."
        )
    steps = max(1, -(-total // (tokens - longest)))
    targets = np.arange(1, steps) * total // steps
    return np.concatenate([[0], _examples_within(lengths, ids, targets), [len(ids)]]).astype(np.int64)


def _examples_within(lengths: np.ndarray, ids: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return how many of the ordered examples end within each of the `targets`, ascending sums of tokens.

    Goes through the order in blocks: the sums of all examples at once would be the largest array of a plan.
    """
    starts, before, found = np.zeros(len(targets), dtype=np.int64), 0, 0
    for first in range(0, len(ids), BLOCK):
        ends = before + np.cumsum(lengths[ids[first : first + BLOCK]], dtype=np.int64)
        before, until = int(ends[-1]), int(np.searchsorted(targets, ends[-1], side="left"))
        starts[found:until] = first + np.searchsorted(ends, targets[found:until], side="right")
        found = until
    return starts


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


def _most_micro_batches(ordered_lengths: np.ndarray, owners: np.ndarray, ranks: int, micro_tokens: int) -> int:
    """Return the most micro-batches that any rank needs; all ranks are cut at once, a micro-batch of each at a time.

    `ordered_lengths` and `owners` are as `assign_to_ranks` returns them: a rank has at most one example a round.
    """
    rounds = -(-len(owners) // ranks)
    lengths_RN = np.zeros((ranks, rounds), dtype=np.int64)
    lengths_RN[owners, np.arange(len(owners)) // ranks] = ordered_lengths
    sizes_R, ends_RN = np.bincount(owners, minlength=ranks), np.cumsum(lengths_RN, axis=1)
    starts_R, count = np.zeros(ranks, dtype=np.int64), 0
    while (starts_R < sizes_R).any():
        before_R = np.where(starts_R > 0, ends_RN[np.arange(ranks), np.minimum(starts_R, rounds) - 1], 0)
        fitting_R = (ends_RN <= before_R[:, None] + micro_tokens).sum(axis=1)
        starts_R, count = np.maximum(fitting_R, starts_R + 1), count + 1
    return count


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
    count = 1 if loads.max() <= micro_tokens else _most_micro_batches(lengths[order], owners, ranks, micro_tokens)
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


def plan_padded(lengths: np.ndarray, tokens: int, equal: bool = False) -> list[np.ndarray]:
    """Plan evaluation batches of at most `tokens` tokens with their padding; with `equal`, of one length each.

    Examples come longest first, and an example longer than `tokens` is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered, starts = lengths[order], [0]
    while starts[-1] < len(order):
        longest = int(ordered[starts[-1]])
        end = starts[-1] + max(1, tokens // max(longest, 1))
        of_one_length = int(np.searchsorted(-ordered, -longest, side="right")) if equal else len(order)
        starts.append(min(end, of_one_length, len(order)))
    return [order[start:end] for start, end in pairwise(starts)]
