"""Reads rows that the user has tokenized, a `datasets.Dataset` or a list of dictionaries, like a split of a store.

They are read once, column by column, as arrays: no Python object is made for a row of a `Dataset`.

Legend: N rows, T their real tokens, S rows asked for.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ftsys.data.store.columns import Column, LabelColumn, NotPackable, columns_of
from ftsys.data.store.index import TokenizerFacts
from ftsys.data.store.reader import Ragged

__all__ = ["LABEL_NAMES", "NotPackable", "TokenizedSplit", "read_tokenized"]

TOKENS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
LABEL_NAMES = ("label", "label_ids", "labels")
IGNORED_LABEL = -100
"""The label that torch's cross-entropy ignores."""


@dataclass(frozen=True, eq=False)
class TokenizedSplit:
    """N examples in memory, with the interface of `StoreSplit`.

    `tokens` (T',) integers, `starts`, `lengths` and `first_lengths` (N,): row i has `lengths[i]` tokens from
    `starts[i]` on. `labels` int64 (N,), or float64 if the column has fractions.
    """

    name: str
    tokenizer: TokenizerFacts
    tokens: npt.NDArray[np.integer]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    first_lengths: npt.NDArray[np.int32]
    labels: npt.NDArray[Any]
    labelled: bool
    label_type: type[np.generic] = np.int64
    """Type of the labels in a stock batch and in predictions: float32 if the column has fractions, else int64."""
    stock_semantics: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        """The number of examples, N."""
        return len(self.lengths)

    def __len__(self) -> int:
        return self.rows

    @cached_property
    def total_tokens(self) -> int:
        """Real tokens (no padding) of the whole split."""
        return int(self.lengths.sum(dtype=np.int64))

    def labels_of(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Read the labels of (S,) rows."""
        return self.labels[np.asarray(rows, np.int64)]

    def gather(self, rows: npt.ArrayLike) -> Ragged:
        """Read examples by row number, (S,) int64 in any order, repeats allowed; IndexError for a row out of range."""
        rows_S = np.asarray(rows, np.int64)
        if rows_S.size and rows_S.view(np.uint64).max() >= self.rows:  # unsigned: a negative row is huge
            raise IndexError(f"rows of {self.name!r} are 0 to {self.rows - 1}, asked for {rows_S.tolist()!r}")
        lengths_S = self.lengths[rows_S]
        cu_seqlens = np.zeros(rows_S.size + 1, np.int32)
        np.add.accumulate(lengths_S, out=cu_seqlens[1:])
        positions_T = np.arange(int(cu_seqlens[-1])) - cu_seqlens[:-1].repeat(lengths_S)
        tokens_T = self.tokens[self.starts[rows_S].repeat(lengths_S) + positions_T]
        return Ragged(
            tokens_T, lengths_S, self.first_lengths[rows_S], self.labels[rows_S], rows_S, positions_T, cu_seqlens
        )


def read_tokenized(
    data: Any, *, name: str, accepted: Collection[str], drop_others: bool, pad_id: int
) -> TokenizedSplit:
    """Turn tokenized rows into a split.

    `accepted` are the names that the model's forward takes. With `drop_others`, other columns are left out, as the
    stock Trainer does with `remove_unused_columns`.

    Raises:
        NotPackable: with the reason, for data that would not give the same sequences when packed.
    """
    table = columns_of(data, (TOKENS, MASK, TYPES, *LABEL_NAMES))
    others = table.other_names & set(accepted) if drop_others else table.other_names
    if others:
        raise NotPackable(f"column {min(others)!r} would go to the model as well")
    tokens = table.lists.get(TOKENS)
    if tokens is None:
        raise NotPackable(f"the data has no column {TOKENS!r}")
    if tokens.rows == 0 or tokens.lengths.min() == 0:
        raise NotPackable("the data has no rows" if tokens.rows == 0 else "a row has no tokens")
    mask = table.lists.get(MASK)
    if mask is None and (tokens.values == pad_id).any():
        raise NotPackable(f"there are padding tokens and no {MASK!r} that tells them apart")
    lengths = tokens.lengths if mask is None else _real_lengths(tokens, mask)
    types = table.lists.get(TYPES) if TYPES in accepted else None
    first = lengths if types is None else _first_lengths(tokens, types, lengths)
    labels, labelled = _labels(table.labels, tokens.rows)
    facts = TokenizerFacts("", pad_id, int(tokens.values.max()) + 1, types is not None, int(lengths.max()))
    starts = tokens.starts
    label_type = np.float32 if labels.dtype == np.float64 else np.int64
    lengths_32, first_32 = lengths.astype(np.int32), first.astype(np.int32)
    return TokenizedSplit(name, facts, tokens.values, starts, lengths_32, first_32, labels, labelled, label_type)


def _positions(column: Column) -> npt.NDArray[np.int64]:
    """Return each token's position in its row."""
    return np.arange(len(column.values)) - column.starts.repeat(column.lengths)


def _real_lengths(tokens: Column, mask: Column) -> npt.NDArray[np.int64]:
    """Count the tokens of each row that the mask shows. Raises NotPackable unless they come first in their row."""
    _check_lengths(tokens, mask, MASK)
    if mask.values.min() == 1 == mask.values.max():
        return tokens.lengths
    shown = mask.values != 0
    lengths = np.add.reduceat(shown, mask.starts, dtype=np.int64)
    if (shown != (_positions(mask) < lengths.repeat(mask.lengths))).any():
        raise NotPackable(f"an {MASK!r} is not ones followed by zeros")
    if lengths.min() == 0:
        raise NotPackable(f"an {MASK!r} is all zeros")
    return lengths


def _first_lengths(tokens: Column, types: Column, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count each row's real tokens before the type becomes 1. Raises NotPackable unless types are zeros, then ones."""
    _check_lengths(tokens, types, TYPES)
    if types.values.max() == 0 == types.values.min():
        return lengths
    positions = _positions(types)
    real = positions < lengths.repeat(types.lengths)
    ones = np.add.reduceat(np.where(real, types.values, 0), types.starts, dtype=np.int64)
    first = lengths - ones
    if ((types.values != (positions >= first.repeat(types.lengths))) & real).any():
        raise NotPackable(f"{TYPES!r} are not zeros followed by ones")
    return first


def _check_lengths(tokens: Column, other: Column, name: str) -> None:
    if other.rows != tokens.rows or (other.lengths != tokens.lengths).any():
        raise NotPackable(f"a row has not as many {name!r} as {TOKENS!r}")


def _labels(found: Mapping[str, LabelColumn], rows: int) -> tuple[npt.NDArray[Any], bool]:
    """Return (N,) labels, and True if there are any: a test set has none, or -1 in every row."""
    if len(found) > 1:
        raise NotPackable(f"there are several label columns: {', '.join(map(repr, sorted(found)))}")
    if not found:
        return np.full(rows, -1, np.int64), False
    ((name, labels),) = found.items()
    if labels.ndim != 1 or labels.dtype.kind not in "iuf":
        raise NotPackable(f"column {name!r} does not hold one number a row")
    if labels.dtype.kind == "f":
        return labels.astype(np.float64), not np.isnan(labels).all()
    if (labels == IGNORED_LABEL).any():
        raise NotPackable(f"column {name!r} holds {IGNORED_LABEL}, which torch's loss leaves out")
    return labels.astype(np.int64), bool((labels != -1).any())
