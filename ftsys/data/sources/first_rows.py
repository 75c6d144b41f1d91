"""The first rows of a split, for a quick try or a small task made of a large one."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftsys.data.sources.rows import Columns, Rows

if TYPE_CHECKING:
    from ftsys.data.sources.source import Split


@dataclass(frozen=True)
class FirstRows:
    """`split` cut off after `count` rows; all of it where it has no more."""

    split: "Split"
    count: int

    @property
    def columns(self) -> Columns:
        """The columns that are read."""
        return self.split.columns

    @property
    def unit(self) -> str:
        """What `Rows.lines` counts."""
        return self.split.unit

    def read(self, rows_per_batch: int) -> Iterator[Rows]:
        """Raw rows in order; nothing is read beyond the batch that holds the last one."""
        left = self.count
        for rows in self.split.read(min(rows_per_batch, self.count)):
            yield rows.first_ones(left)
            left -= len(rows.first)
            if left <= 0:
                return

    def rows(self) -> int | None:
        """Number of rows, or None where only reading them tells."""
        there = self.split.rows()
        return None if there is None else min(self.count, there)

    def sha256(self) -> str:
        """Hex digest of what decides the rows."""
        return hashlib.sha256(f"the first {self.count} of {self.split.sha256()}".encode()).hexdigest()
