"""Chooses a few batch sizes in tokens (buckets), so that a GPU's work is recorded once per size and then replayed.

The batches of a run are known before it starts. A sample of them decides at most `MAX_SIZES` sizes, such that filling
every batch up to the next size takes the fewest filler tokens.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ftsys.data.store.reader import Ragged

MAX_SIZES = 8
SAMPLE_STEPS = 256
"""Steps in the sample of batches."""
FILL_LIMIT = 16
"""A batch that needs more fillers than 1/16 of its tokens keeps its own size, and its work is not recorded."""


@dataclass(frozen=True)
class SizeBuckets:
    """Sizes in `tokens`, ascending, for batches of `examples` examples.

    Each size includes a filler sequence of at least one token. No sequence, real or filler, exceeds `longest` tokens.
    """

    tokens: tuple[int, ...]
    examples: int
    longest: int

    @classmethod
    def of(cls, lengths: np.ndarray, batches: Iterable[np.ndarray]) -> "SizeBuckets":
        """Choose sizes from the `batches` of a sample, arrays of indices into `lengths`."""
        sums = [(len(ids), int(lengths[ids].sum())) for ids in batches]
        usual = Counter(count for count, _ in sums).most_common(1)[0][0]
        sizes = few_sizes(np.array([tokens for count, tokens in sums if count == usual]), MAX_SIZES)
        return cls(tuple(int(size) + 1 for size in sizes), usual, int(lengths.max()))

    def tokens_for(self, rows: Ragged) -> int | None:
        """Return the size that a batch of `rows` is filled up to; None for a batch that is unlike the sample."""
        own = len(rows.tokens)
        size = next((size for size in self.tokens if size > own), None)
        fits = size is not None and size - own <= min(self.longest, 1 + own // FILL_LIMIT)
        return size if fits and len(rows.lengths) == self.examples else None


def few_sizes(counts: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` sizes, ascending, with the fewest fillers in all; `counts` are tokens, integer (N,).

    The result is exact, by dynamic programming over the distinct counts: the last group of a best division into k
    groups ends with the largest count, and the counts before that group are a best division into k - 1 groups.
    """
    values, times = np.unique(counts, return_counts=True)
    before, sums = (np.concatenate([[0], np.cumsum(each)]) for each in (times, times * values))
    first, end = np.arange(len(values) + 1)[:, None], np.arange(1, len(values) + 1)
    # cost[first, end - 1]: fillers if the counts with indices from `first` to `end - 1` are one group; never empty.
    cost = values[end - 1] * (before[end] - before[first]) - (sums[end] - sums[first])
    cost = np.where(first < end, cost.astype(np.float64), np.inf)
    best, begins = cost[0], list[np.ndarray]()
    for _ in range(min(most, len(values)) - 1):
        total = np.concatenate([[np.inf], best])[:, None] + cost
        begins.append(total.argmin(0))
        best = total.min(0)
    ends = [len(values)]
    for begin in reversed(begins):
        ends.append(int(begin[ends[-1] - 1]))
    return values[np.array(ends[::-1]) - 1]
