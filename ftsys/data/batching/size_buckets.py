"""Few numbers of tokens for many batches, so that a GPU's work can be recorded once for each and replayed.

The batches of a run are known before it starts. A sample of them says which sizes, at most `MOST`, cost the fewest
filler tokens when every batch is filled up to the next one.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ftsys.data.store.reader import Ragged

MOST = 8
SAMPLE = 256
"""Steps that are looked at."""
MOST_FILLED = 16
"""A batch is not filled up by more than this part of its tokens: it keeps its own size, and nothing is recorded."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of batches of `examples` examples: `tokens`, ascending, a filler sequence of one token or more included.

    `longest` tokens have the longest of their sequences, real or filler.
    """

    tokens: tuple[int, ...]
    examples: int
    longest: int

    @classmethod
    def of(cls, lengths: np.ndarray, batches: Iterable[np.ndarray]) -> "Shapes":
        """For the `batches` of a sample, arrays of indices into `lengths`."""
        sums = [(len(ids), int(lengths[ids].sum())) for ids in batches]
        usual = Counter(count for count, _ in sums).most_common(1)[0][0]
        sizes = few_sizes(np.array([tokens for count, tokens in sums if count == usual]), MOST)
        return cls(tuple(int(size) + 1 for size in sizes), usual, int(lengths.max()))

    def tokens_for(self, rows: Ragged) -> int | None:
        """The size that a batch of `rows` is filled up to; None for one that is unlike the sample."""
        own = len(rows.tokens)
        size = next((size for size in self.tokens if size > own), None)
        fits = size is not None and size - own <= min(self.longest, 1 + own // MOST_FILLED)
        return size if fits and len(rows.lengths) == self.examples else None


def few_sizes(counts: np.ndarray, most: int) -> np.ndarray:
    """The sizes, at most `most`, ascending, that cost the fewest fillers in all; `counts` are tokens, integer (N,).

    Exact, by dynamic programming over the distinct counts: the last group of a best division into k groups ends with
    the largest count, and the rest of it is a best division into k - 1.
    """
    values, times = np.unique(counts, return_counts=True)
    before, sums = (np.concatenate([[0], np.cumsum(each)]) for each in (times, times * values))
    first, end = np.arange(len(values) + 1)[:, None], np.arange(1, len(values) + 1)
    # Fillers, where the counts from `first` up to before `end` are one group; a group is never empty.
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
