"""Makes padded batches of a split's rows, as a server would send them to an exported model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftsys.export.targets import Inputs
from ftsys.finished.run import FinishedRun
from ftsys.finished.store import open_store

BATCH_ROWS = 32
_NAMES = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class SplitRows:
    """The first `count` rows of a labelled split of a store, and the token that pads them."""

    split: Any
    count: int
    pad_id: int

    @property
    def labels(self) -> np.ndarray:
        """The labels of the rows."""
        return np.asarray(self.split.labels[: self.count])

    def batches(self) -> Iterator[Inputs]:
        """Yield all rows in order, in batches that are padded to their longest row."""
        for first in range(0, self.count, BATCH_ROWS):
            yield self.padded(range(first, min(first + BATCH_ROWS, self.count)))

    def other_shapes(self) -> list[Inputs]:
        """Return batches of other shapes: one row alone, one token alone, two rows padded to the longest of all."""
        longest = int(self.split.lengths.max())
        shortest = int(self.split.lengths[: self.count].argmin())
        one = self.padded([shortest])
        return [one, {name: value[:, :1] for name, value in one.items()}, self.padded([shortest, shortest], longest)]

    def two(self) -> Inputs:
        """Return the inputs of the first two rows, twice the first one where there is no other."""
        return self.padded([0, min(1, self.count - 1)])

    def padded(self, rows: Sequence[int], length: int = 0) -> Inputs:
        """Return the inputs of some rows, each (S, L) int64, padded on the right to `length` or to the longest row."""
        examples = [self.split[row] for row in rows]
        length = max(length, *(len(example["input_ids"]) for example in examples))
        fills = {"input_ids": self.pad_id}
        return {
            name: np.array(
                [example[name] + [fills.get(name, 0)] * (length - len(example[name])) for example in examples], np.int64
            )
            for name in _NAMES
            if name in examples[0]
        }


def split_rows(finished: FinishedRun, name: str, most: int) -> SplitRows:
    """Take at most `most` rows of a split. Raises the errors of `open_store`."""
    store = open_store(finished, name)
    split = store.splits[name]
    return SplitRows(split, min(most, len(split)), store.tokenizer.pad_id)
