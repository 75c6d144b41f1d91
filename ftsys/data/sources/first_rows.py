"""Cuts a split off after its first rows, for a quick test or a small task made from a large one."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from ftsys.data.sources.rows import Columns, Rows, SourceSplit


@dataclass(frozen=True)
class FirstRows:
    """The first `count` rows of `split`, or all of its rows if it has fewer."""

    split: SourceSplit
    count: int

    @property
    def columns(self) -> Columns:
        """The columns that are read."""
        return self.split.columns

    @property
    def unit(self) -> str:
        """The unit of `Rows.lines`: 'line' or 'row'."""
        return self.split.unit

    def read(self, rows_per_batch: int) -> Iterator[Rows]:
        """Yield raw rows in order; reads nothing beyond the batch with the last of them."""
        left = self.count
        for rows in self.split.read(min(rows_per_batch, self.count)):
            yield rows.first_ones(left)
            left -= len(rows.first)
            if left <= 0:
                return

    def rows(self) -> int | None:
        """Return the number of rows; None if only reading them tells."""
        there = self.split.rows()
        return None if there is None else min(self.count, there)

    def sha256(self) -> str:
        """Return a hex digest of everything that decides the rows."""
        return hashlib.sha256(f"the first {self.count} of {self.split.sha256()}".encode()).hexdigest()
